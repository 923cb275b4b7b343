"""Which events are worth ranking for a user, and the features of each (user, event) pair."""
