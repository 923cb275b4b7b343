"""Which columns of the published lists are answered: all that say something of one item.

Neither numpy nor DuckDB is imported here: the service itself needs none.
"""

from __future__ import annotations

from collections.abc import Collection

from tgn_assets.ml.schema import TABLES, Column

OF_THE_LIST = ("week", "target_week", "user_id", "rank")
"""Columns that are the same for a whole list, and the rank, which is an item's place in it."""


def list_columns(table: str, there: Collection[str] | None = None) -> list[Column]:
    """The columns of an item beside `rank`, in the order of the schema; of those that are `there`, if it is given."""
    columns = [column for column in TABLES[table].columns if column.name not in OF_THE_LIST]
    return [column for column in columns if there is None or column.name in there]


NOTHING_PUBLISHED = 3
"""Exit status of `tgn_assets.serve.compact` for a sound file that has no week."""
