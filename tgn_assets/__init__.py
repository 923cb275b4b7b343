"""Every user's top-5 events for the next week, refreshed weekly by Dagster."""

import os

# OpenMP's threads wait by spinning, which takes the core from whoever could use it: the Dagster daemon, another run.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# A million nodes' vectors are hundreds of megabytes, which the system hands out in pages: the larger, the sooner.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
# Both count only if set before torch loads.
