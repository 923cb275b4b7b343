"""A connection to PostgreSQL: URLs without passwords, the driver if it is installed, errors that can be shown."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import unquote

from tgn_assets.ml.safe_text import SafeError, first_line, holds_password, safe_error
from tgn_assets.ml.schema import quoted

if TYPE_CHECKING:
    from adbc_driver_manager.dbapi import Connection

SCHEMES = ("postgresql://", "postgres://")
CONNECT_SECONDS = 10
"""How long to wait for a server that does not answer, unless the URL or PGCONNECT_TIMEOUT says."""

NAME = r'(?:"(?:[^"]|"")+"|[^\W\d][\w$]*)'
TABLE, SELECT = re.compile(rf"{NAME}(?:\.{NAME}){{0,2}}"), re.compile(r"(select|with)\b", re.IGNORECASE)


class PostgresError(SafeError):
    """What the server, or the driver, answered; `remedy` says what to do."""

    def __init__(self, reason: str, remedy: str):
        super().__init__(reason)
        self.remedy = remedy


def is_postgres(location: str) -> bool:
    """Whether `location` is the URL of a PostgreSQL database."""
    return location.lower().startswith(SCHEMES)


def refuse_password(url: str) -> str:
    """`url`, if it holds no password: it is shown and written down in many places. ValueError, which does not repeat
    it, if it does.
    """
    if holds_password(url):
        raise ValueError(
            "it holds a password, which would be seen in logs and in the UI; write "
            "postgresql://user@host:port/database and give the password as PGPASSWORD, or in the file ~/.pgpass"
        )
    return url


def relation(query: str) -> str:
    """TGN_SOURCE_QUERY as what may stand behind FROM. ValueError if it is neither the name of a table nor a SELECT."""
    text = query.strip().rstrip(";").rstrip()
    if SELECT.match(text):
        return f"(\n{text}\n) AS source"  # the line break ends a comment
    if TABLE.fullmatch(text):
        return text
    raise ValueError(f"{query} is neither the name of a table, such as shop.clicks, nor a SELECT")


def split_schema(url: str) -> tuple[str, str | None]:
    """The URL that PostgreSQL knows, and what `schema=` in it names."""
    place, _, options = url.partition("?")
    pairs = [pair.partition("=") for pair in options.split("&") if pair]
    schema = next((unquote(value) for name, _, value in pairs if name == "schema"), None)
    rest = "&".join("".join(pair) for pair in pairs if pair[0] != "schema")
    return f"{place}?{rest}" if rest else place, schema


def require_driver() -> None:
    """PostgresError if the driver is not installed."""
    try:
        import adbc_driver_postgresql.dbapi  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise PostgresError(
            f"{error.name or 'the driver'} is not installed", "run pip install -c constraints.txt -e '.[postgres]'"
        ) from error


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection in UTC that commits nothing by itself. PostgresError for whatever the server refuses within it."""
    require_driver()
    from adbc_driver_manager import Error
    from adbc_driver_postgresql import dbapi

    try:
        con = dbapi.connect(_with_defaults(url))
    except Error as error:
        raise PostgresError(
            server_message(error),
            "check that the server is up and that host, port, user and database are right; a password is taken from "
            "PGPASSWORD or ~/.pgpass",
        ) from safe_error(error)
    with con:
        try:
            with con.cursor() as cursor:
                cursor.execute("SET TimeZone = 'UTC'")
            yield con
        except Error as error:
            raise PostgresError(
                server_message(error), "check the name, and that the user has the right to do so"
            ) from safe_error(error)


@contextmanager
def connected_in_schema(url: str) -> Iterator[Connection]:
    """`connected`, in the schema that `schema=` in the URL names, if it does."""
    place, schema = split_schema(url)
    with connected(place) as con:
        if schema:
            run(con, f"SET LOCAL search_path TO {quoted(schema)}")
        yield con


def run(con: Connection, sql: str, *parameters: str) -> list[tuple]:
    """The rows of a query: unless they are fetched, its error would go unseen."""
    with con.cursor() as cursor:
        cursor.execute(sql, parameters or None)
        return cursor.fetchall() if cursor.description else []


def server_message(error: Exception) -> str:
    """What the server said, in one line, without what driver and DuckDB put around it."""
    text = str(error).strip()
    said = re.search(r"(?:ERROR|FATAL): +(.*)", text) or re.search(r"Failed to connect: (.*)", text)
    return said[1] if said else first_line(error)


def _with_defaults(url: str) -> str:
    defaults = "fallback_application_name=tgn_assets"
    if "connect_timeout=" not in url and "PGCONNECT_TIMEOUT" not in os.environ:
        defaults += f"&connect_timeout={CONNECT_SECONDS}"
    return f"{url}{'&' if '?' in url else '?'}{defaults}"
