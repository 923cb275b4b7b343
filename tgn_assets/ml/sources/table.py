"""A table in memory as a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import duckdb

from tgn_assets.ml.schema import quoted
from tgn_assets.ml.sources.relations import Column, Opened, Relation, SourceKind, Table, parts_of

ROWS = "rows_in_memory"


class TableSource(SourceKind):
    """The data frame `spec.table`, whose columns are typed."""

    reads_all = True

    @contextmanager
    def open(
        self, con: duckdb.DuckDBPyConnection, _weeks: Sequence[str] | None, _summarise: bool = False
    ) -> Iterator[Opened]:
        """All rows."""
        con.register(ROWS, self.spec.table)
        try:
            described = con.execute(f"DESCRIBE {ROWS}").fetchall()
            columns = {name: Column(quoted(name), dtype) for name, dtype, *_ in described}
            yield Opened(parts_of(self.spec, [Table(self.spec.location, "", columns, Relation(ROWS))]))
        finally:
            con.unregister(ROWS)
