"""Whether a week of the log is like the weeks before it: how much, how many new users, which events, how popular.

Each measure of the week is compared with its median over the trailing weeks, in robust standard deviations (1.4826
times the median absolute deviation; Leys et al. 2013). The floors keep a steady log from raising false alarms: at the
limit of 4, the volume must have changed 2.7-fold (e to the power 4 * 0.25), a share by 0.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import duckdb
import numpy as np
import pandas as pd

from tgn_assets.ml.weeks import shift, weeks_between

TRAILING, MIN_WEEKS = 12, 4
"""Weeks before the one in question that say what is usual, and how many of them it takes."""
LIMIT = 4.0
"""Robust standard deviations from the median that count as drift."""
FLOORS = {"volume": 0.25, "new_user_share": 0.05, "event_turnover": 0.05, "popularity_shift": 0.05}
"""Each measure's smallest standard deviation; that of `volume` is of its logarithm."""

SIZES_SQL = """
    WITH sizes AS (
        SELECT week, count(*) AS interactions, count(DISTINCT user_id) AS users FROM raw_interactions
        WHERE week <= $week::DATE AND week >= $week::DATE - 7 * $trailing GROUP BY week
    ), new AS (SELECT first_week AS week, count(*) AS new_users FROM users GROUP BY first_week)
    SELECT strftime(week, '%Y-%m-%d') AS week, interactions, users, coalesce(new_users, 0) AS new_users
    FROM sizes LEFT JOIN new USING (week) ORDER BY week
"""
COUNTS_SQL = """
    SELECT strftime(week, '%Y-%m-%d') AS week, event_id, count(*) AS interactions FROM raw_interactions
    WHERE week <= $week::DATE AND week >= $week::DATE - 7 * $trailing GROUP BY ALL ORDER BY ALL
"""


@dataclass(frozen=True)
class Drift:
    """One measure of a week beside what is usual; `z` is in robust standard deviations."""

    measure: str
    value: float
    usual: float
    z: float

    @property
    def drifted(self) -> bool:
        """Whether the value lies outside the usual range."""
        return abs(self.z) > LIMIT

    def __str__(self) -> str:
        form = ",.0f" if self.measure == "volume" else ".2f"
        return f"{self.measure} {self.value:{form}}, usually {self.usual:{form}} (robust z {self.z:+.1f})"


def read_measures(con: duckdb.DuckDBPyConnection, week: str) -> pd.DataFrame:
    """`measures` of `week` and the `TRAILING` weeks before it, from the warehouse; nothing later is read."""
    # One week more, for the change from the week before the oldest one.
    asked = {"week": week, "trailing": TRAILING + 1}
    found = measures(con.execute(SIZES_SQL, asked).df(), con.execute(COUNTS_SQL, asked).df(), week)
    return found.loc[found.index >= shift(week, -TRAILING)]


def measures(sizes: pd.DataFrame, counts: pd.DataFrame, week: str) -> pd.DataFrame:
    """The columns `FLOORS`, a row for each week from the first of `sizes` to `week`; NaN where there is no answer.

    `sizes`: week, interactions, users, new_users. `counts`: week, event_id, interactions. No row: none.

    volume is the number of interactions; new_user_share that of the users who were never seen before; event_turnover
    the share of the week's events that the week before did not have; popularity_shift the total variation distance
    between the events' shares of both weeks' interactions.
    """
    weeks = weeks_between(sizes["week"].min() if len(sizes) else week, week)
    sizes = sizes.set_index("week").reindex(weeks)
    table = counts.pivot(index="week", columns="event_id", values="interactions").reindex(weeks).fillna(0).to_numpy()
    before, now = table[:-1], table[1:]
    both = (before.sum(1) > 0) & (now.sum(1) > 0)
    turnover, moved = np.full(len(weeks), np.nan), np.full(len(weeks), np.nan)
    before, now = before[both], now[both]
    turnover[1:][both] = ((now > 0) & (before == 0)).sum(1) / (now > 0).sum(1)
    shares = [part / part.sum(1, keepdims=True) for part in (before, now)]
    moved[1:][both] = np.abs(shares[1] - shares[0]).sum(1) / 2
    return pd.DataFrame(
        {
            "volume": sizes["interactions"].fillna(0),
            "new_user_share": sizes["new_users"] / sizes["users"],
            "event_turnover": turnover,
            "popularity_shift": moved,
        },
        index=pd.Index(weeks, name="week"),
    )


def drift(measures: pd.DataFrame) -> list[Drift]:
    """The last row of `measures` beside the rows before it: each measure that has a value in it and in `MIN_WEEKS`."""
    found = []
    for name, floor in FLOORS.items():
        values = measures[name].dropna()
        if len(values) <= MIN_WEEKS or values.index[-1] != measures.index[-1]:
            continue
        scaled = np.log1p(values.to_numpy(float)) if name == "volume" else values.to_numpy(float)
        past, value = scaled[:-1], scaled[-1]
        scale = max(1.4826 * float(np.median(np.abs(past - np.median(past)))), floor)
        z = float((value - np.median(past)) / scale)
        found.append(Drift(name, float(values.iloc[-1]), float(np.median(values.iloc[:-1])), z))
    return found
