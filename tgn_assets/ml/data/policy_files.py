"""A policy from settings: lists of event ids, given in place or as a file, and a table of expiry dates."""

from __future__ import annotations

import csv
import re
import zlib
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd

from tgn_assets.ml.connectors.duckdb_session import connect, reason_of
from tgn_assets.ml.data.policy import Policy
from tgn_assets.ml.safe_text import SafeError, safe_error, shortened
from tgn_assets.ml.sources.formats import table_of_file
from tgn_assets.ml.sources.relations import id_of, id_text
from tgn_assets.ml.sources.spec import NULL_VALUES, SourceError
from tgn_assets.ml.sources.timestamp_sql import EARLIEST, LATEST, moment_sql, one_of

LARGEST = 1 << 28
"""Bytes of a file of ids, which is read into memory as a whole."""
LONG_AGO = date(1971, 1, 1)
"""Before it, a date of expiry is hardly meant: systems that have none write 1970, and a year of two digits is too."""
LONG_AGO_REMEDY = (
    "leave expires_at empty where an event does not expire, write years in full, and name events that are never to be "
    "listed in TGN_DENY_EVENTS"
)
EXPIRY_FORM = "a date or a time such as 2024-03-01 or 2024-03-01T12:00:00+01:00"


class PolicyError(SafeError, ValueError):
    """A setting of the policy that cannot be used; the message names it and says what to do."""


def read_policy(
    *,
    allow_events: str | None,
    deny_events: str | None,
    event_expiry: str | None,
    null_values: Sequence[str] = NULL_VALUES,
    **others: Any,
) -> Policy:
    """The policy of the settings of these names, files read as they are now; PolicyError if one cannot be used.

    `others` are fields of `Policy` as they are.
    """
    allow = read_ids("TGN_ALLOW_EVENTS", allow_events) if allow_events else None
    deny = read_ids("TGN_DENY_EVENTS", deny_events) if deny_events else frozenset()
    expires = read_expiry(event_expiry, null_values) if event_expiry else {}
    return Policy(allow=allow, deny=deny, expires=expires, **others)


def read_ids(setting: str, value: str) -> frozenset[str]:
    """The event ids that `value` holds: the lines of the file of that name, or else its parts between commas."""
    path = Path(value).expanduser()
    if path.is_file():
        if path.stat().st_size > LARGEST:
            raise PolicyError(f"{setting}={value} has more than {LARGEST >> 20} MB: one event id a line, and no more")
        try:
            parts = _of_lines(setting, value, path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError) as error:
            said = f"{setting}={value} cannot be read as text ({error}): one event id a line"
            raise PolicyError(said) from safe_error(error)
    elif "/" in value or path.suffix in (".txt", ".csv"):
        raise PolicyError(f"{setting}={value} is no file; name one with an event id a line, or list ids with commas")
    else:
        parts = value.split(",")
    found = frozenset(id_of(part.strip()) for part in parts if part.strip())
    if not found:
        raise PolicyError(f"{setting}={value} holds no event id; leave the setting out where nothing is to be listed")
    return found


def _of_lines(setting: str, value: str, text: str) -> list[str]:
    """The ids of a file, one a line: of one that is called CSV or whose lines all are in quotes, as CSV has them."""
    lines = list(filter(None, map(str.strip, text.splitlines())))
    if not value.lower().endswith((".csv", ".tsv")) and not all(re.fullmatch('".*"', line) for line in lines):
        return lines
    delimiter = next((mark for mark in "\t;," if mark in lines[0]), ",") if lines else ","
    rows = list(csv.reader(lines, delimiter=delimiter, skipinitialspace=True))
    if widest := max((row for row in rows if len(row) > 1), key=len, default=None):
        raise PolicyError(
            f"{setting}={value} has {len(widest)} columns in a line, {shortened(repr(widest))}: write the event ids "
            "alone, one a line, in quotes where they hold a comma"
        )
    return [row[0] for row in rows if row]


def read_expiry(value: str, null_values: Sequence[str] = NULL_VALUES) -> dict[str, datetime]:
    """The times (UTC; without a zone they are taken as UTC) of a CSV or Parquet file with the columns event_id and
    expires_at; of an event with several, the earliest. Without a time, or with one of `null_values`, it has none."""
    path = Path(value).expanduser()
    if not path.is_file():
        raise PolicyError(f"TGN_EVENT_EXPIRY={value} is no file; it is CSV or Parquet with event_id and expires_at")
    with connect() as con:
        try:
            read, _ = table_of_file(f"TGN_EVENT_EXPIRY={value}", str(path), ["event_id", "expires_at"])
            return _expiry(con, read, null_values)
        except SourceError as error:
            raise PolicyError(str(error)) from None
        except (duckdb.Error, OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
            raise PolicyError(
                f"TGN_EVENT_EXPIRY={value} cannot be read ({reason_of(error)}): it needs the columns event_id and "
                f"expires_at, {EXPIRY_FORM}"
            ) from safe_error(error)


def expiry_times(table: pd.DataFrame) -> dict[str, datetime]:
    """`read_expiry` of the data frame `table` with these columns. ValueError for a time that cannot be read."""
    with connect() as con:
        con.register("expiry", table)
        try:
            return _expiry(con, "expiry", NULL_VALUES)
        except duckdb.Error as error:
            raise ValueError(f"expires_at cannot be read ({reason_of(error)}): it is {EXPIRY_FORM}") from error


def _expiry(con: duckdb.DuckDBPyConnection, relation: str, null_values: Sequence[str]) -> dict[str, datetime]:
    (event, dtype, *_), (_, of_time, *_) = con.execute(
        f"DESCRIBE SELECT event_id, expires_at FROM {relation}"
    ).fetchall()
    has_time = f"NOT {one_of('expires_at', ('', *null_values))}" if of_time == "VARCHAR" else "true"
    given = f"""(SELECT {id_text(event, dtype)} AS id, {moment_sql("expires_at", of_time)} AS moment FROM {relation}
        WHERE expires_at IS NOT NULL AND {has_time})"""
    # `infinity` is never, `-infinity` always.
    within = f"least(greatest(moment, TIMESTAMPTZ '{EARLIEST}'), TIMESTAMPTZ '{LATEST}')"
    fault = "'the event ' || id || ' expires at ' || strftime(moment, '%Y-%m-%d') || ', long ago: ' || $remedy"
    checked = f"CASE WHEN isfinite(moment) AND moment < TIMESTAMPTZ '{LONG_AGO}' THEN error({fault}) ELSE {within} END"
    query = f"SELECT id, epoch_us(min({checked})) FROM {given} WHERE id IS NOT NULL GROUP BY id"
    rows = con.execute(query, {"remedy": LONG_AGO_REMEDY}).fetchall()
    return {name: datetime.fromtimestamp(micros / 1e6, UTC) for name, micros in rows}
