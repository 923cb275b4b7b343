"""Rows of lists in a warehouse, for tests."""

import pandas as pd

from tgn_assets.state.warehouse import Warehouse

WEEK, NEXT = "2024-01-01", "2024-01-08"


def predictions(*users: str, week: str = WEEK, target_week: str = NEXT) -> pd.DataFrame:
    columns = {"week": week, "target_week": target_week, "rank": 1, "event_id": "e", "score": 0.5, "source": "popular"}
    return pd.DataFrame({"user_id": list(users), **columns})


def users(warehouse: Warehouse, week: str = WEEK) -> list[str]:
    with warehouse.reader() as con:
        query = "SELECT user_id FROM weekly_top5_predictions WHERE week = ? ORDER BY ALL"
        return [user for (user,) in con.execute(query, [week]).fetchall()]
