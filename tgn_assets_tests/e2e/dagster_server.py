"""A real `tgn dev` on a small log of three weeks."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

from benchmarks.dev_server import LOG, Server, dev_server
from tgn_assets.ml.sources.synthetic import World, generate_week
from tgn_assets.ml.weeks import shift

WEEKS = [shift("2024-01-01", i) for i in range(3)]
WORLD = World(users=40, events=30, communities=3)


@contextmanager
def dagster_dev(folder: Path) -> Iterator[Server]:
    """Started with all its state in `folder`; what it printed is shown in the end."""
    log = folder / "log.csv"
    rows = pd.concat([generate_week(week, WORLD) for week in WEEKS])
    rows.rename(columns={"user_id": "ip_address", "ts": "timestamp"}).to_csv(log, index=False)
    settings = {"TGN_HOME": str(folder / "home"), "TGN_SOURCE": str(log), "TGN_END_WEEK": WEEKS[-1]}
    try:
        with dev_server(folder, settings) as server:
            yield server
    finally:
        print((folder / LOG).read_text()[-5000:])
