"""`tgn serve`: the published lists over HTTP, from a copy of `current.duckdb` in memory, without Dagster and torch."""
