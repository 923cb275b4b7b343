"""A real server: what comes out is what a file with the same rows would give, and no more is read than is needed."""

import re
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tgn_assets.ml.connectors.postgres import is_postgres, refuse_password, relation
from tgn_assets.ml.data.staging import stage_weeks
from tgn_assets.ml.sources.extent import (
    describe_source,
    smallest_week_number,
    source_digests,
    source_signature,
    survey_source,
)
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets_tests.support.histories import EXTENT, ROWS, WEEKS, load, rows, warehouse
from tgn_assets_tests.support.postgres import Postgres

VALUES = ", ".join("('{}', '{}', '{}')".format(*row.split(",")) for row in ROWS.splitlines())
INGESTED = ("raw_interactions", "ingested_weeks", "users", "events")
SECONDS = "extract(epoch FROM ts)"

TYPES = {
    "timestamp": "ts",
    "timestamptz": "ts AT TIME ZONE 'UTC'",
    "date": "ts::date",
    "bigint": SECONDS,
    "numeric": f"{SECONDS} * 1000",
    "numeric(20,3)": f"{SECONDS} * 1000",
    "float8": SECONDS,
    "text": 'to_char(ts, \'YYYY-MM-DD"T"HH24:MI:SS"Z"\')',
}
"""Ways to keep the time, and how each is made from a timestamp."""


def table(postgres: Postgres, dtype: str = "timestamp", more: str = "") -> SourceSpec:
    """`ROWS`, and what else `more` says, in a table `log` that keeps its times as `dtype`."""
    postgres.run(
        "DROP TABLE IF EXISTS log",
        f"CREATE TABLE log AS SELECT ip_address, event_id, ({TYPES[dtype]})::{dtype} AS timestamp "
        f"FROM (SELECT u, e, t::timestamp FROM (VALUES {VALUES}{more}) AS v(u, e, t)) AS l(ip_address, event_id, ts)",
    )
    return SourceSpec(postgres.url(), query="log")


def reads(lines: list[str]) -> list[str]:
    """The SELECTs whose rows the server was asked for."""
    return [found[1] for line in lines if (found := re.search(r"COPY \((SELECT .*)\) TO STDOUT", line))]


@pytest.mark.parametrize("dtype", [dtype for dtype in TYPES if dtype != "numeric"])
def test_every_time_type_gives_same_weeks_singly_or_at_once(postgres: Postgres, dtype: str) -> None:
    spec = table(postgres, dtype)
    extent = describe_source(spec)
    assert extent.first_week == EXTENT.first_week and extent.closed_by_rows == EXTENT.closed_by_rows
    assert dtype == "date" or extent == EXTENT
    at_once, one_by_one = warehouse(), warehouse()
    load(at_once, spec)
    for week in reversed(WEEKS):
        report = load(one_by_one, spec, [week])
        assert (report.rows, report.before_start, report.after_end) == ({week: 1}, None, None)
    assert source_digests(spec, WEEKS) == dict(
        one_by_one.sql("SELECT week::VARCHAR, digest FROM ingested_weeks").fetchall()
    )
    assert rows(one_by_one, "raw_interactions") == rows(at_once, "raw_interactions")
    assert [row[:2] for row in rows(at_once, "raw_interactions")] == [("u1", "e1"), ("u1", "e2"), ("u2", "e1")]


def test_an_asked_week_without_a_row_looks_for_the_newest_one(postgres: Postgres) -> None:
    with stage_weeks(table(postgres), ["2024-03-04"], start_week=WEEKS[0], end_week=None) as staged:
        assert (staged.counts, staged.newest_week()) == ([], EXTENT.closed_by_rows)


BIG = """SELECT 'u' || g % 7 AS ip_address, 'e' || g % 5 AS event_id,
                timestamp '2024-01-01' + g * interval '10 minutes' AS ts"""


@pytest.mark.parametrize("dtype", ["timestamp", "timestamptz", "date", "bigint", "numeric"])
def test_loading_a_week_uses_the_index_and_reads_only_its_rows(postgres: Postgres, dtype: str) -> None:
    postgres.run(
        "DROP TABLE IF EXISTS log",
        f"CREATE TABLE log AS SELECT ip_address, event_id, ({TYPES[dtype]})::{dtype} AS timestamp "
        f"FROM ({BIG} FROM generate_series(0, 50 * 1008 - 1) AS g) AS rows",
        "CREATE INDEX log_time ON log (timestamp)",
        "ANALYZE log",
    )
    spec = SourceSpec(postgres.url(), query="log")
    with postgres.copied() as copied, postgres.heard() as lines:
        assert load(warehouse(), spec, ["2024-02-05"]).rows == {"2024-02-05": 1008}
    assert copied == [1008]
    (read,) = [line for line in reads(lines) if "log" in line]
    plan = "\n".join(line for (line,) in postgres.run(f"EXPLAIN {read}"))
    assert "log_time" in plan and "Seq Scan" not in plan
    with postgres.copied() as copied:
        source_digests(spec, ["2024-02-05", "2024-02-19"])
    assert copied == [2 * 1008]
    with postgres.copied() as copied:
        assert describe_source(spec).closed_by_rows == "2024-12-09"
    assert copied[0] < 3 * 1008


@pytest.mark.parametrize("dtype", ["timestamp", "text"])
def test_a_survey_reads_the_table_once(postgres: Postgres, dtype: str) -> None:
    spec = table(postgres, dtype)
    expected = describe_source(spec).closed_by_rows, source_digests(spec, WEEKS[1:])
    with postgres.copied() as copied:
        extent, digests = survey_source(spec, since=WEEKS[1])
    assert digests is not None
    assert (extent.closed_by_rows, {week: digests[week] for week in WEEKS[1:]}) == expected
    assert copied == [2 if dtype == "timestamp" else 3]
    assert survey_source(spec, since="2024-03-04") == (describe_source(spec), {} if dtype == "timestamp" else digests)


def test_of_a_text_the_whole_table_is_read(postgres: Postgres) -> None:
    with postgres.copied() as copied:
        assert load(warehouse(), table(postgres, "text"), ["2024-01-08"]).rows == {"2024-01-08": 1}
    assert copied == [3]


HARD = """
    ('u', 'e', NULL), ('u', 'e', 'infinity'), ('u', 'e', '-infinity'), ('u', 'e', '290000-01-01'),
    ('u', 'e', '4000-01-01 BC'), ('u', 'e', '1969-12-31 23:59:59.999999'), ('u', 'e', '2200-01-01'),
    (NULL, 'e', '2024-01-10'), ('', 'e', '2024-01-10'), ('u', NULL, '2024-01-22'),
    ('edge', 'e', '2024-01-08 00:00:00'), ('edge', 'e', '2024-01-07 23:59:59.999999'), ('edge', 'e', '1970-01-01')
"""


@pytest.mark.parametrize("dtype", ["timestamp", "timestamptz"])
def test_every_load_records_rows_without_a_week(postgres: Postgres, dtype: str) -> None:
    spec = table(postgres, dtype, "," + HARD)
    con = warehouse()
    for week in ("2024-01-01", "2024-01-08", "2024-01-01"):
        report = load(con, spec, [week])
        without_week = con.sql("SELECT reason, count(*) FROM rejected_interactions WHERE week IS NULL GROUP BY ALL")
        assert report.undated == dict(without_week.fetchall()) == {"missing_time": 1, "time_out_of_range": 6}
        assert sum(report.rejected.values()) == (9 if week == "2024-01-08" else 7)
    edge = con.sql(
        "SELECT week::VARCHAR, ts::VARCHAR FROM raw_interactions WHERE user_id = 'edge' ORDER BY ts"
    ).fetchall()
    assert edge == [("2024-01-01", "2024-01-07 23:59:59.999999"), ("2024-01-08", "2024-01-08 00:00:00")]


def test_numbers_are_seconds_or_milliseconds_each_by_itself(postgres: Postgres) -> None:
    postgres.run(
        "DROP TABLE IF EXISTS log",
        "CREATE TABLE log (ip_address text, event_id int, timestamp float8)",
        "INSERT INTO log VALUES ('s', 1, 1704672000), ('ms', 2, 1704672000000), ('none', 3, 'NaN'),"
        "('inf', 4, 'Infinity'), ('old', 5, -1), ('far', 6, 7258118400), ('farther', 7, 7258118400000),"
        "('up', 8, 1704671999.9999999),"
        "('s', 9, 1704671999), ('up', 10, 7258118399.9999999), ('ms', 11, 1704671999999)",
    )
    con = warehouse()
    assert load(con, SourceSpec(postgres.url(), query="log"), ["2024-01-08"]).rows == {"2024-01-08": 3}
    assert [row[:2] for row in rows(con, "raw_interactions")] == [("ms", "2"), ("s", "1"), ("up", "8")]
    rejected = con.sql("SELECT user_id, reason FROM rejected_interactions").fetchall()
    assert dict(rejected) == {
        "none": "missing_time",
        "inf": "unreadable_time",
        "old": "time_out_of_range",
        "far": "time_out_of_range",
        "farther": "time_out_of_range",
        "up": "time_out_of_range",
    }


def test_week_numbers_are_asked_for_by_number(postgres: Postgres) -> None:
    postgres.run(
        "DROP TABLE IF EXISTS log",
        "CREATE TABLE log AS SELECT 'u' AS ip_address, g AS event_id, (g / 10)::numeric AS week_number "
        "FROM generate_series(10, 99) AS g",
        "INSERT INTO log VALUES ('half', 1, 2.5), ('far', 2, 99999), ('before', 3, -99999)",
    )
    spec = SourceSpec(postgres.url(), query="log")
    assert smallest_week_number(spec) == -99999
    spec = replace(spec, week_number_anchor=(1, WEEKS[0]))
    with postgres.copied() as copied:
        report = load(warehouse(), spec, [WEEKS[2]])
    assert report.rows == {WEEKS[2]: 10}
    assert report.rejected == {"time_out_of_range": 2, "unreadable_time": 1}
    assert copied == [13]
    extent = describe_source(spec)
    assert (extent.first_week, extent.closed_by_rows) == (WEEKS[0], "2024-02-26")


def test_select_source_writes_ids_as_postgresql_does(postgres: Postgres) -> None:
    postgres.run(
        "CREATE SCHEMA shop",
        'CREATE TABLE shop."Clicks" ("User" uuid, item numeric(20,0), kind char(4), ts timestamptz)',
        """INSERT INTO shop."Clicks" VALUES ('a0000000-0000-0000-0000-000000000001', 12345678901234567890, 'buy',
           '2024-01-08 01:00:00+02'), ('a0000000-0000-0000-0000-000000000001', 1, 'see', '2024-01-09')""",
    )
    spec = SourceSpec(postgres.url(), "user", "item", "ts", query='shop."Clicks"', row_filter="kind = 'buy'")
    con = warehouse()
    assert load(con, spec, WEEKS[:1]).rows == {WEEKS[0]: 1}
    expected = [("a0000000-0000-0000-0000-000000000001", "12345678901234567890")]
    assert [row[:2] for row in rows(con, "raw_interactions")] == expected
    assert load(con, spec, WEEKS[1:2]).filtered == 1
    select = 'SELECT "User" AS u, item, ts FROM shop."Clicks" WHERE kind = \'buy\' -- and no other\n;'
    assert load(con, replace(spec, query=select, user_column="u", row_filter=None), WEEKS[:2]).rows == {
        WEEKS[0]: 1,
        WEEKS[1]: 0,
    }


def test_ids_of_bytes_arrays_and_json(postgres: Postgres) -> None:
    postgres.run(
        "DROP TABLE IF EXISTS log",
        "CREATE TABLE log (ip_address bytea, event_id text[], doc jsonb, timestamp timestamptz, item float8)",
        """INSERT INTO log VALUES ('\\x00112233445566778899aabbccddeeff', '{e}', '{"id": 1}', '2024-01-03', 7)""",
    )
    con, spec = warehouse(), SourceSpec(postgres.url(), event_column="item", query="log")
    load(con, spec, WEEKS[:1])
    assert [row[:2] for row in rows(con, "raw_interactions")] == [("00112233-4455-6677-8899-aabbccddeeff", "7")]
    for column in ("event_id", "doc"):
        with pytest.raises(SourceError, match=f"the column '{column}' of .* is of type .*: set TGN_EVENT_COLUMN"):
            describe_source(replace(spec, event_column=column))


def test_the_ends_are_those_of_rows_that_count(postgres: Postgres) -> None:
    spec = table(postgres, more=", (NULL, 'e', '2020-01-01'), ('', 'e', '2031-01-01'), ('u', 'e', '2030-01-01')")
    assert describe_source(replace(spec, row_filter="timestamp < TIMESTAMP '2029-01-01'")) == replace(
        EXTENT, rejected={}
    )


def test_source_without_valid_rows_changes_nothing(postgres: Postgres) -> None:
    con, spec = warehouse(), table(postgres)
    load(con, spec)
    before = [rows(con, name) for name in INGESTED]
    with pytest.raises(SourceError, match=r"none of the 3 rows .* meets TGN_ROW_FILTER"):
        describe_source(replace(spec, row_filter="event_id = 'none'"))
    assert load(warehouse(), spec, ["2024-01-29"]).rows == {"2024-01-29": 0}
    postgres.run("TRUNCATE log")
    for use in (describe_source, lambda spec: load(con, spec, WEEKS[:1])):
        with pytest.raises(SourceError, match="has no rows"):
            use(spec)
    assert [rows(con, name) for name in INGESTED] == before


def test_the_source_cannot_be_written_to(postgres: Postgres) -> None:
    table(postgres)
    spec = SourceSpec(postgres.url(), query="WITH gone AS (DELETE FROM log RETURNING *) SELECT * FROM gone")
    with pytest.raises(SourceError):
        load(warehouse(), spec)
    assert postgres.run("SELECT count(*) FROM log") == [(3,)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": "nowhere"}, r'relation "nowhere" does not exist\); check the name'),
        ({"query": "SELECT 1 AS one"}, "TGN_SOURCE_QUERY=SELECT 1 AS one has no column 'ip_address'.*'one'"),
        ({"query": "SELECT *, 1/(length(event_id)-2) AS x FROM log", "user_column": "x"}, r"\(division by zero\)"),
        ({"location": "postgresql://postgres@127.0.0.1:1/postgres"}, "Connection refused.*check that the server is up"),
    ],
)
def test_server_error_is_quoted_with_a_remedy(postgres: Postgres, change: dict[str, Any], message: str) -> None:
    with pytest.raises(SourceError, match=message) as raised:
        load(warehouse(), replace(table(postgres), **change))
    assert len(str(raised.value).splitlines()) == 1


def test_a_password_comes_from_the_environment_and_is_never_said(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    table(postgres)
    postgres.run("CREATE ROLE reader LOGIN PASSWORD 'open-sesame'", "GRANT SELECT ON log TO reader")
    spec = SourceSpec(postgres.url("reader"), query="log")
    monkeypatch.setenv("PGPASSWORD", "open-says-me")
    with pytest.raises(SourceError, match=r'password authentication failed for user "reader".*PGPASSWORD') as raised:
        describe_source(spec)
    assert "open" not in str(raised.value) + str(raised.value.__cause__)
    monkeypatch.setenv("PGPASSWORD", "open-sesame")
    assert describe_source(spec) == EXTENT


def test_without_the_driver_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    with pytest.raises(SourceError, match=r"pip install -c constraints.txt -e '.\[postgres\]'"):
        describe_source(SourceSpec("postgresql:///shop", query="log"))


def test_signature_changes_hourly_without_a_connection() -> None:
    spec = SourceSpec("postgresql://nobody@127.0.0.1:1/nowhere", query="log")
    now = datetime(2024, 1, 1, 10, 59, tzinfo=UTC)
    assert source_signature(spec, now) == source_signature(spec, now.replace(minute=0))
    assert source_signature(spec, now) != source_signature(spec, now.replace(hour=11))
    assert source_signature(spec, now) != source_signature(replace(spec, query="other"), now)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:secret@host/db",
        "postgres://u:sec@ret@host/db",
        "postgresql://u:sec/ret@host/db",
        "postgresql://u:sec?ret@host/db",
        "POSTGRESQL://:secret@host",
        "postgresql://host/db?user=u&password=secret",
        "postgresql://host/db?sslpassword=secret",
    ],
)
def test_a_url_with_a_password_is_refused_without_repeating_it(url: str) -> None:
    assert is_postgres(url)
    with pytest.raises(ValueError, match="PGPASSWORD") as raised:
        refuse_password(url)
    assert "sec" not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["postgresql://u@[::1]:5432/db", "postgresql://host:5432/db", "postgresql:///db?service=a"]
)
def test_other_urls_are_fine(url: str) -> None:
    assert refuse_password(url) == url


@pytest.mark.parametrize("query", ["log; DROP TABLE log", "DROP TABLE log", "", "a.b.c.d", "log WHERE true", '"log'])
def test_a_query_is_a_table_or_a_select(query: str) -> None:
    with pytest.raises(ValueError, match="neither the name of a table"):
        relation(query)
