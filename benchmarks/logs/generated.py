"""Generates large logs in seconds: Zipf popularity, repeat habits, a constant volume each week.

`tgn_assets.ml.sources.synthetic` has a world to learn from; these logs only have to cost what real ones of their size
would.
"""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from tgn_assets.ml.arrays import FloatArray, IntArray
from tgn_assets.ml.weeks import shift

START, WEEKS = "2024-01-01", 26
HABITS, HABIT_SHARE = 4, 0.5
"""Events that a user returns to, and the share of the interactions that are such returns."""
COMMUNITIES, COMMUNITY_SHARE = 50, 0.7
"""Each user and event belongs to one community; this share of the other interactions stays within it."""
HEAD = 10
"""Zipf-Mandelbrot: the event of popularity rank r (from 0) is drawn in proportion to 1 / (HEAD + r)."""

WRITE_SQL = """
    COPY (SELECT 'u' || user AS user, 'e' || event AS item, ts FROM rows ORDER BY ts) TO '{path}' (FORMAT parquet)
"""


def write_log(folder: Path, interactions: int, *, users: int, events: int, weeks: int = WEEKS, seed: int = 0) -> str:
    """Writes `interactions` rows (user, item, ts in unix seconds), one Parquet file a week; returns their glob.

    Spreads the rows evenly over `weeks` weeks from START. The most active of n users has about n^(1/3) times the mean.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng, con = np.random.default_rng(seed), duckdb.connect()
    for week, size in enumerate(np.diff(np.linspace(0, interactions, weeks + 1).astype(int))):
        user = (users * rng.random(size) ** 1.5).astype(np.int64)
        event = np.where(
            rng.random(size) < HABIT_SHARE, _habit(user, events, rng.random(size)), _explored(user, events, rng)
        )
        ts = np.datetime64(shift(START, week), "s").astype(np.int64) + rng.integers(0, 7 * 86400, size)
        rows = pd.DataFrame({"user": user, "event": event, "ts": ts})  # noqa: F841 (DuckDB reads it)
        con.execute(WRITE_SQL.format(path=folder / f"{week:03d}.parquet"))
    return str(folder / "*.parquet")


def _habit(user: IntArray, events: int, u: FloatArray) -> IntArray:
    """One of each user's habitual events, the first the most often."""
    nth = (HABITS * u**2).astype(np.uint64)
    word = (user.astype(np.uint64) * np.uint64(HABITS) + nth + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
    return _in_community(user, events, (word >> np.uint64(11)) * 2.0**-53)


def _explored(user: IntArray, events: int, rng: np.random.Generator) -> IntArray:
    """A popular event, most often of the user's community."""
    within, anywhere = rng.random(len(user)), zipf(events, rng.random(len(user)))
    return np.where(rng.random(len(user)) < COMMUNITY_SHARE, _in_community(user, events, within), anywhere)


def _in_community(user: IntArray, events: int, u: FloatArray) -> IntArray:
    """An event of the user's community by `u`, uniform in [0, 1); event e belongs to community e % COMMUNITIES."""
    communities = min(COMMUNITIES, events)
    return zipf(events // communities, u) * communities + user % communities


def zipf(size: int, u: FloatArray) -> IntArray:
    """Ranks below `size` from `u`, uniform in [0, 1): the quantiles of a continuous Zipf-Mandelbrot law."""
    return np.minimum(HEAD * ((1 + size / HEAD) ** u - 1), size - 1).astype(np.int64)
