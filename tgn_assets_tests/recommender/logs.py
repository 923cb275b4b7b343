"""Logs as data frames, under the column names of RecTools."""

from datetime import datetime, timedelta
from typing import Any

import pandas as pd

from tgn_assets_tests.support.worlds import START, habits

FAST: dict[str, dict[str, Any]] = {
    "gnn": {"epochs": 2, "replay": 3, "dim": 8},
    "ranker": {"epochs": 2, "networks": 1, "dim": 8, "origins": 3, "fallback": {"min_users": 1000}},
}
"""Fields of the configurations with which a fit takes a second or two, and a trained ranker makes all lists."""


def habit_log(users: int = 24, events: int = 12, weeks: int = 6) -> pd.DataFrame:
    """user_id (text), item_id (int64), datetime: `habits` on the days of the week, and two days of a week more."""
    monday = datetime.fromisoformat(START)
    rows = [
        (user, int(event[1:]), monday + timedelta(weeks=week, days=int(user[1:]) % 7, hours=int(event[1:])))
        for user, event, week, _ in habits(users, events, weeks + 1)
        if week < weeks or int(user[1:]) % 7 < 2
    ]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "datetime"])
