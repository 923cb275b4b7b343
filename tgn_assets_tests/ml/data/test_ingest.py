from collections.abc import Iterator
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path

import duckdb
import pytest

from tgn_assets.ml.data.ingest import load_weeks, store_weeks
from tgn_assets.ml.data.ingest_stats import UnusedRows, unused_rows
from tgn_assets.ml.data.source_check import check_source
from tgn_assets.ml.data.staging import stage_weeks
from tgn_assets.ml.schema import TABLES
from tgn_assets.ml.sources.extent import source_digests
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets.ml.sources.timestamp_sql import TimeStyle
from tgn_assets.ml.weeks import shift
from tgn_assets_tests.support.histories import BAD, HEADER, ROWS, WEEKS, csv, indices, load, parquet, rows, warehouse

START = WEEKS[0]


@pytest.fixture
def con() -> Iterator[duckdb.DuckDBPyConnection]:
    with warehouse() as con:
        yield con


def warnings(con: duckdb.DuckDBPyConnection, spec: SourceSpec) -> list[str]:
    """What loading all rows of `spec` warns of."""
    said: list[str] = []
    load_weeks(con, spec, WEEKS, start_week=START, end_week=None, warn=said.append)
    return said


def test_valid_rows_are_loaded_as_they_came_in(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    report = load(con, csv(tmp_path, HEADER + "007, e 1 ,2024-01-09T01:30:00+02:00\n007, e 1 ,1704756600\n"))
    row = ("007", " e 1 ", datetime(2024, 1, 8, 23, 30), date(2024, 1, 8))
    assert rows(con, "raw_interactions") == [row, row]
    assert report.rows == {"2024-01-01": 0, "2024-01-08": 2, "2024-01-15": 0}
    assert rows(con, "ingested_weeks") == [
        (date.fromisoformat(week), report.rows[week], report.digests[week]) for week in WEEKS
    ]


def test_times_with_and_without_a_zone_are_said(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    text = csv(tmp_path, f"{HEADER}u,e,2024-01-01T10:00:00+02:00\nu,f,2024-01-02 10:00\nu,g,2024-01-02\n")
    typed = tmp_path / "typed"
    typed.mkdir()
    parquet(typed, "SELECT 'u' AS ip_address, 'e' AS event_id, TIMESTAMP '2024-01-01 10:00' AS timestamp")
    parquet(
        typed, "SELECT 'u' AS ip_address, 'e' AS event_id, TIMESTAMPTZ '2024-01-01 10:00+02' AS timestamp", "b.parquet"
    )
    for spec in (text, SourceSpec(str(typed))):
        mixed = "1 times have an offset or a zone, 1 have none and are read as UTC: set TGN_TIME_ZONE"
        assert any(mixed in one for one in warnings(con, spec))
        assert any(mixed in one for one in check_source(spec).suspicions)
        assert not warnings(con, replace(spec, time_style=TimeStyle(zone="Europe/Berlin")))
    assert not warnings(
        con, csv(tmp_path, f'{HEADER}u,e,"2024-01-01 10:00:00,5"\nu,e,1704110400\nu,e,2024-01-01 10:00\n')
    )


def test_days_before_months_are_said(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    spec = csv(tmp_path, f"{HEADER}u,e,2024-02-01\nu,e,2024-25-01\n")
    assert any(
        "'2024-25-01' cannot be read and may be of a log that writes the day" in one for one in warnings(con, spec)
    )
    assert not warnings(con, spec)  # these rows are known


def test_an_id_of_blanks_is_missing_and_one_behind_a_blank_is_kept(
    tmp_path: Path, con: duckdb.DuckDBPyConnection
) -> None:
    report = load(con, csv(tmp_path, f'{HEADER}"  ",e,2024-01-02\nu," ",2024-01-02\n" u"," é",2024-01-02\n'))
    assert report.rejected == {"missing_user": 1, "missing_event": 1}
    assert con.execute("SELECT user_id, event_id FROM raw_interactions").fetchall() == [(" u", " é")]


def test_a_row_that_cannot_be_used_is_recorded_with_one_reason(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    report = load(con, csv(tmp_path, HEADER + "\n".join([*BAD, "u,e,2024-01-03"])))
    assert rows(con, "rejected_interactions") == sorted(
        [
            (date(2024, 1, 1), "missing_user", None, "e", "2024-01-02"),
            (date(2024, 1, 8), "missing_event", "u", None, "2024-01-09"),
            (None, "missing_time", "u", "e", None),
            (None, "missing_user", None, None, None),
            (None, "unreadable_time", "u", "e", "soon"),
            (None, "time_out_of_range", "u", "e", "1969-12-31T23:59:59Z"),
            (None, "time_out_of_range", "u", "e", "2200-01-01"),
            (None, "unreadable_line", "u,e", None, None),  # the line itself, in the first column
            (None, "unreadable_line", "u,e,2024-01-02,x", None, None),
        ],
        key=lambda row: [(value is None, value) for value in row],
    )
    assert report.rejected == {
        "missing_user": 2,
        "time_out_of_range": 2,
        "unreadable_line": 2,
        "missing_event": 1,
        "missing_time": 1,
        "unreadable_time": 1,
    }
    assert sum(report.rejected.values()) - sum(report.undated.values()) == 2


def test_rejected_rows_of_other_weeks_wait_for_their_week(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    report = load(con, csv(tmp_path, HEADER + ",e,2024-01-02\n,e,2024-01-09\nu,e,2024-01-03\n"), [START])
    assert report.rejected == {"missing_user": 1}
    assert [week for week, *_ in rows(con, "rejected_interactions")] == [date(2024, 1, 1)]


def test_rows_outside_start_and_end_week_are_only_counted(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    days = ["1970-01-02", "2024-01-07", "2024-01-08", "2024-01-14", "2024-01-15", "2025-12-31"]
    spec = csv(tmp_path, HEADER + "".join(f"u,e,{day}\n" for day in days))
    report = load_weeks(con, spec, ["2024-01-08"], start_week="2024-01-08", end_week="2024-01-08")
    assert (report.rows, report.before_start, report.after_end) == ({"2024-01-08": 2}, 2, 2)
    assert len(rows(con, "raw_interactions")) == 2


def test_unused_rows_are_counted_for_people(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    assert unused_rows(con) == UnusedRows({}, None, None, {})
    lines = ["u,e,2024-01-01", ",e,2024-01-02", "u,e,2024-01-08", ",e,2024-01-09", "u,,soon", "u,e,2024-01-16"]
    lines += [",e,2024-01-17", "u,,2024-01-18", ",e,2024-01-19", "u,e,2024-01-20"]
    spec = csv(tmp_path, HEADER + "\n".join(lines) + "\n")
    for _ in range(2):
        load_weeks(con, spec, ["2024-01-08"], start_week="2024-01-08", end_week="2024-01-08")
        assert unused_rows(con) == UnusedRows(
            {"missing_event": 1, "missing_user": 1}, 1, 2, {"missing_user": 3, "missing_event": 1}
        )
    load_weeks(con, spec, WEEKS, start_week=START, end_week=None)
    assert unused_rows(con) == UnusedRows({"missing_user": 4, "missing_event": 2}, 0, 0, {})


def test_rejected_rows_without_a_week_are_told_once(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    bad = ["u,e,soon", "u,e,", f",e,{WEEKS[0]}", f",e,{WEEKS[1]}", f"u,e,{WEEKS[2]}"]
    spec, told = csv(tmp_path, HEADER + "\n".join(bad)), list[str]()
    for week in WEEKS:
        load_weeks(con, spec, [week], start_week=START, end_week=None, warn=told.append)
    rejected = [text.partition("rejected rows: ")[2].partition(" (")[0] for text in told if "rejected rows" in text]
    assert [sorted(text.split(", ")) for text in rejected] == [
        ["missing_time 1", "missing_user 1", "unreadable_time 1"],
        ["missing_user 1"],
    ]
    spec = csv(tmp_path, HEADER + "\n".join([*bad, "v,e,later"]))
    load_weeks(con, spec, [WEEKS[2]], start_week=START, end_week=None, warn=told.append)
    assert any("unreadable_time 2" in text for text in told[-3:])
    assert sum("has no line end and may be cut: is the file whole?" in text for text in told) == len(WEEKS) + 1


def test_what_the_source_no_longer_has_at_its_beginning_stays(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    rows_of = {week: f"u,e,{week}\nv,f,{week}\n" for week in WEEKS}
    first, second, third = rows_of.values()
    report = load(con, csv(tmp_path, HEADER + first + second + third))
    there, told = rows(con, "raw_interactions"), list[str]()
    shorter = csv(tmp_path, HEADER + second.splitlines()[0] + "\n" + third)
    again = load_weeks(con, shorter, WEEKS, start_week=START, end_week=None, warn=told.append)
    assert (again.rows, again.digests, again.no_longer_there) == (report.rows, report.digests, WEEKS[:2])
    assert rows(con, "raw_interactions") == there
    assert f"the rows of {WEEKS[0]} to {WEEKS[1]} stay as they were ingested" in told[0]
    # With a start week, nothing before it is of interest; a row that cannot be used tells that the week is there.
    load_weeks(con, shorter, WEEKS[1:], start_week=WEEKS[1], end_week=None)
    assert len(rows(con, "raw_interactions")) == len(there) - 1
    load(con, csv(tmp_path, f"{HEADER},e,{WEEKS[0]}\n{third}"))
    assert [str(row[3]) for row in rows(con, "raw_interactions")] == [WEEKS[2], WEEKS[2]]


def test_stragglers_of_lost_weeks_replace_nothing(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    first, second, third = ("".join(f"u{n},e,{week}\n" for n in range(20)) for week in WEEKS)
    load(con, csv(tmp_path, HEADER + first + second + third))
    there = rows(con, "raw_interactions")
    for late in (f"u1,e,{WEEKS[0]}\n", "u1,e,2023-01-02\n"):
        report = load(con, csv(tmp_path, HEADER + late + third))
        assert report.no_longer_there == WEEKS and rows(con, "raw_interactions") == there
    load(con, csv(tmp_path, HEADER + 2 * late.replace("2023-01-02", WEEKS[0]) + third))  # a tenth
    assert len(rows(con, "raw_interactions")) == 2 + 0 + 20


@pytest.mark.parametrize(("kept", "says"), [(7, True), (8, False)])
def test_a_source_that_lost_many_rows_is_asked_about(
    tmp_path: Path, con: duckdb.DuckDBPyConnection, kept: int, says: bool
) -> None:
    lines, told = [f"u{n},e,{WEEKS[n % 2]}\n" for n in range(10)], list[str]()
    load(con, csv(tmp_path, HEADER + "".join(lines)))
    shorter = csv(tmp_path, HEADER + "".join(lines[:kept]))
    load_weeks(con, shorter, WEEKS, start_week=START, end_week=None, warn=told.append)
    assert len(rows(con, "raw_interactions")) == kept
    said = f"has {kept} rows of {WEEKS[0]} to {WEEKS[1]}, and had 10 when they were ingested: is the export whole?"
    assert (said in "".join(told)) == says


@pytest.mark.parametrize("users", [1, 19, 20])
def test_another_log_of_the_same_name_is_refused(tmp_path: Path, con: duckdb.DuckDBPyConnection, users: int) -> None:
    load(con, csv(tmp_path, HEADER + "".join(f"u{n},e,{WEEKS[n % 2]}\n" for n in range(users))))
    there = rows(con, "raw_interactions")
    if users < 20:
        load(con, csv(tmp_path, f"{HEADER}other,e,{WEEKS[0]}\n"))  # of a small log
        assert len(rows(con, "raw_interactions")) == 1
        return
    with pytest.raises(SourceError, match="has none of the 20 users"):
        load(con, csv(tmp_path, HEADER + "".join(f"e,u{n},{WEEKS[n % 2]}\n" for n in range(users))))
    assert rows(con, "raw_interactions") == there
    load(con, csv(tmp_path, f"{HEADER}other,e,{WEEKS[0]}\nu1,e,{WEEKS[1]}\n"))  # one is still there
    assert len(rows(con, "raw_interactions")) == 2


def test_a_log_with_other_events_alone_is_refused(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    lines = [f"u{n},e{n},{WEEKS[n % 2]}\n" for n in range(20)]
    load(con, csv(tmp_path, HEADER + "".join(lines)))
    other = csv(tmp_path, HEADER + "".join(lines).replace(",e", ",x"))
    with pytest.raises(SourceError, match=r"has none of the 20 events .* 'event_id' holds other ids than it did"):
        load(con, other)
    load(con, csv(tmp_path, HEADER + "".join(lines).replace(",e1,", ",x,")))
    assert len(rows(con, "raw_interactions")) == 20


def test_a_week_with_wrong_ids_can_be_mended(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    of_weeks = ["".join(f"{name}{n},e,{week}\n" for n in range(20)) for name, week in zip("ux", WEEKS, strict=False)]
    load(con, csv(tmp_path, HEADER + "".join(of_weeks)))
    load(con, csv(tmp_path, HEADER + of_weeks[0] + of_weeks[1].replace("x", "u")), [WEEKS[1]])
    assert {user for user, *_ in rows(con, "raw_interactions")} == {f"u{n}" for n in range(20)}


def test_indices_follow_first_week_then_id_in_any_load_order(tmp_path: Path) -> None:
    days = [("b", "é", 1), ("a", "z", 1), ("c", "B", 0), ("Z", "a", 2), ("b", "a", 0), ("10", "a", 2), ("9", "a", 2)]
    spec = csv(tmp_path, HEADER + "".join(f"{user},{event},{WEEKS[week]}\n" for user, event, week in days))
    with warehouse() as at_once, warehouse() as one_by_one:
        report = load(at_once, spec)
        assert (report.new_users, report.new_events) == (6, 4)
        assert [load(one_by_one, spec, [week]).new_users for week in WEEKS] == [2, 1, 3]
        assert indices(one_by_one, "user") == indices(at_once, "user")
        assert indices(one_by_one, "event") == indices(at_once, "event")
        first, second, third = WEEKS
        assert indices(at_once, "user") == {
            "b": (0, first),
            "c": (1, first),
            "a": (2, second),
            "10": (3, third),
            "9": (4, third),
            "Z": (5, third),
        }
        assert list(indices(at_once, "event")) == ["B", "a", "z", "é"]


def test_the_digest_of_a_load_is_that_of_the_source(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    spec = csv(tmp_path, HEADER + "\n".join([*BAD, "u,e,2024-01-03", "u,e,2024-01-03", "u,f,2024-01-17"]))
    assert load(con, spec).digests == source_digests(spec, WEEKS)


def test_ids_of_other_types_are_written_as_duckdb_writes_them(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    load(
        con, parquet(tmp_path, "SELECT 7 AS ip_address, 1.50::DECIMAL(9,2) AS event_id, DATE '2024-01-03' AS timestamp")
    )
    load(
        con,
        parquet(tmp_path, "SELECT TIME '10:00:00' AS ip_address, true AS event_id, DATE '2024-01-17' AS timestamp"),
        WEEKS[2:],
    )
    assert [row[:2] for row in rows(con, "raw_interactions")] == [("10:00:00", "true"), ("7", "1.50")]


def test_an_empty_text_and_a_nan_are_missing_in_parquet(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    values = "('', 1e0, 1.72e9), ('u', 'nan'::DOUBLE, 1.72e9), ('u', 1, 'nan'::DOUBLE), (NULL, 1, 1.72e9)"
    report = load(con, parquet(tmp_path, f"SELECT * FROM (VALUES {values}) AS t(ip_address, event_id, timestamp)"))
    assert report.rejected == {"missing_time": 1}
    assert load_weeks(
        con, SourceSpec(str(tmp_path / "log.parquet")), ["2024-07-01"], start_week=START, end_week=None
    ).rejected == {
        "missing_user": 2,
        "missing_event": 1,
        "missing_time": 1,
    }


def test_a_source_of_only_bad_rows_is_recorded(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    report = load(con, csv(tmp_path, HEADER + "\n".join(BAD)))
    assert not any(report.rows.values())
    assert len(rows(con, "rejected_interactions")) == sum(report.rejected.values()) == len(BAD)


@pytest.mark.parametrize("text", [None, "", HEADER, "a,b,c\nu,e,2024-01-03\n"])
def test_a_source_that_cannot_be_read_changes_nothing(
    tmp_path: Path, con: duckdb.DuckDBPyConnection, text: str | None
) -> None:
    spec = csv(tmp_path, HEADER + "u,e,2024-01-03\n,e,2024-01-03\n")
    load(con, spec)
    before = {table: rows(con, table) for table in TABLES}
    Path(spec.location).unlink()
    if text is not None:
        csv(tmp_path, text)
    with pytest.raises(SourceError, match="TGN_"):
        load(con, spec)
    assert {table: rows(con, table) for table in TABLES} == before


def test_a_failure_half_way_changes_nothing(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    load(con, csv(tmp_path, HEADER + "u,e,2024-01-03\n"))
    before = {table: rows(con, table) for table in TABLES}
    con.execute("ALTER TABLE events RENAME TO hidden")
    with pytest.raises(duckdb.CatalogException):
        load(con, csv(tmp_path, HEADER + "u,e,2024-01-04\nv,e,2024-01-04\n"))
    con.execute("ALTER TABLE hidden RENAME TO events")
    assert {table: rows(con, table) for table in TABLES} == before


@pytest.mark.parametrize("week", ["2024-01-02", "2023-12-25", "2024-01-15"])
def test_week_outside_partitions_is_refused(tmp_path: Path, con: duckdb.DuckDBPyConnection, week: str) -> None:
    with pytest.raises(ValueError, match=week):
        load_weeks(con, csv(tmp_path), [week], start_week=START, end_week="2024-01-08")


def test_synthetic_weeks_are_generated_on_demand(con: duckdb.DuckDBPyConnection) -> None:
    spec = SourceSpec("synthetic")
    report = load(con, spec, WEEKS[1:] * 2)
    assert report.digests == source_digests(spec, WEEKS[1:] * 2) == source_digests(spec, WEEKS[1:])
    assert min(report.rows.values()) > 100
    assert not report.rejected and report.before_start == report.after_end == 0
    assert {row[3] for row in rows(con, "raw_interactions")} == {date.fromisoformat(week) for week in WEEKS[1:]}
    assert shift(WEEKS[0], 1) in {week for _, week in indices(con, "user").values()}


def test_while_the_source_is_read_it_says_so(
    tmp_path: Path, con: duckdb.DuckDBPyConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tgn_assets.ml.progress.SECONDS_BETWEEN", 0.001)
    said: list[str] = []
    load_weeks(con, csv(tmp_path), WEEKS, start_week=START, end_week=None, progress=said.append)
    assert said and all(line.startswith("reading the source: ") for line in said)


def test_source_is_read_before_the_warehouse_is_touched(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    spec = csv(tmp_path)
    with stage_weeks(spec, WEEKS, start_week=START, end_week=None) as staged:
        assert rows(con, "raw_interactions") == []
        Path(spec.location).unlink()
        assert sum(store_weeks(con, staged).rows.values()) == 3
    assert not staged.database.exists()


def test_unreadable_lines_beyond_those_kept_are_counted(tmp_path: Path, con: duckdb.DuckDBPyConnection) -> None:
    report = load(con, csv(tmp_path, HEADER + ROWS + "u,e\n" * 1200))
    assert report.rejected == {"unreadable_line": 1200}
    rejected = [row[2] for row in rows(con, "rejected_interactions")]
    assert (rejected.count("u,e"), rejected.count(None)) == (1000, 200)
