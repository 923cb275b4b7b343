"""Connections to DuckDB, all with the same settings."""

from __future__ import annotations

from pathlib import Path

import duckdb


def connect(database: str | Path = ":memory:", *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """A connection in UTC that neither downloads nor loads an extension by itself."""
    con = duckdb.connect(database, read_only=read_only)
    con.execute("SET autoinstall_known_extensions = false; SET autoload_known_extensions = false; SET TimeZone = 'UTC'")
    return con
