"""When lists were published, and whether others took their place since."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from tgn_assets.state.lineage import PREDICTIONS

if TYPE_CHECKING:
    import duckdb

PUBLICATIONS_SQL = """
    SELECT strftime(week, '%Y-%m-%d'), made_at, first_made_at, replaced FROM made_weeks
    WHERE asset = $asset AND replaced IS NOT NULL ORDER BY week
"""


@dataclass(frozen=True)
class PublicationTimes:
    """When the lists of a week were published, in UTC."""

    week: str
    published_at: datetime
    """Since when the lists are as they are."""
    first_published_at: datetime
    replaced: int
    """How often other lists took the place of these: late rows, a new policy, another model."""

    def __str__(self) -> str:
        times = "" if self.replaced == 1 else f" {self.replaced:,} times, most recently"
        return (
            f"the lists of {self.week} took the place of others{times} at {self.published_at:%Y-%m-%d %H:%M} UTC; "
            f"first published at {self.first_published_at:%Y-%m-%d %H:%M} UTC"
        )


def publications(con: duckdb.DuckDBPyConnection) -> list[PublicationTimes]:
    """One for each published week of which it is known, oldest first."""
    return [PublicationTimes(*row) for row in con.execute(PUBLICATIONS_SQL, {"asset": PREDICTIONS}).fetchall()]


def replaced_lists(con: duckdb.DuckDBPyConnection, week: str) -> PublicationTimes | None:
    """When the lists made at the close of `week` took the place of others; None if they are the first."""
    return next((one for one in publications(con) if one.week == week and one.replaced), None)
