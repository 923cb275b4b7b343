"""`tgn serve`: the published lists over HTTP, from a copy in memory of `current.duckdb`. It imports neither Dagster nor torch."""
