"""Every user's top-5 events for the next week, refreshed weekly by Dagster."""
