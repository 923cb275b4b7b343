"""Every user's top-5 events for the next week, refreshed weekly by Dagster."""

import os

# OpenMP's threads wait by spinning, which takes the core from whoever could use it: the Dagster daemon, another run.
# It counts only if set before torch loads.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
