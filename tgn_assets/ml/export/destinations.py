"""Where a week's lists and metrics are copied to beside the warehouse.

To add a destination, write a function like `_to_parquet`, an entry in `DESTINATIONS`, and the setting `export_<name>`:
the asset `<name>_export` and the command `tgn export` follow.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tgn_assets.ml.export import parquet

if TYPE_CHECKING:
    import duckdb

Reader = Callable[[], "AbstractContextManager[duckdb.DuckDBPyConnection]"]
"""Opens the warehouse for reading."""


@dataclass(frozen=True)
class Destination:
    """One kind of location; a deployment names its own in the setting `TGN_EXPORT_<NAME>`."""

    description: str  # of the asset, for the UI
    table_location: str  # how `tgn export` prints a table at a location
    write: Callable[[Reader, str, str], Mapping[str, int]]
    """(warehouse, location, week) -> rows by table. Replaces what the location has of the week; ExportError if it
    cannot."""


def export_weeks(
    destination: Destination,
    reader: Reader,
    location: str,
    weeks: Sequence[str],
    *,
    done: Callable[[str, Mapping[str, int]], None] = lambda *_: None,
) -> dict[str, int]:
    """Exports `weeks`; the rows by table. Calls `done` with each week and its rows by table."""
    rows = Counter(dict.fromkeys(parquet.EXPORTED, 0))
    for week in weeks:
        written = destination.write(reader, location, week)
        done(week, written)
        rows.update(written)
    return dict(rows)


def _to_parquet(reader: Reader, location: str, week: str) -> Mapping[str, int]:
    with reader() as con:
        return parquet.export_week(con, location, week)


def _to_postgres(reader: Reader, location: str, week: str) -> Mapping[str, int]:
    from tgn_assets.ml.export.postgres import read_week, replace_week

    with reader() as con:  # closed again before the server is asked, however slow it is
        tables = read_week(con, week)
    return replace_week(location, week, tables)


DESTINATIONS: Mapping[str, Destination] = {
    "parquet": Destination(
        description="Write the week's lists and metrics as Parquet, in hive partitions `<table>/week=<week>/`.\n\n"
        "It is a step of its own: if nothing can be written there, the lists are published all the same, and this step "
        "alone can be run again. `tgn export` does the same for all weeks.",
        table_location="{location}/{table}",
        write=_to_parquet,
    ),
    "postgres": Destination(
        description="Replace the week's lists and metrics in tables of PostgreSQL, in one transaction.\n\n"
        "It is a step of its own: if the server is down, the lists are published all the same, and this step alone can "
        "be run again. `tgn export` does the same for all weeks.",
        table_location="{location} {table}",
        write=_to_postgres,
    ),
}
"""The registry of destinations, in the order in which `tgn export` writes."""
