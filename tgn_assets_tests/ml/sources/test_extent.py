import os
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import Mock

import duckdb
import pytest

from tgn_assets.ml.sources import extent as extent_module
from tgn_assets.ml.sources.extent import (
    describe_source,
    first_week_of,
    smallest_week_number,
    source_digests,
    source_signature,
    survey_source,
)
from tgn_assets.ml.sources.reader import scan
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets.ml.sources.timestamp_sql import TimeStyle
from tgn_assets_tests.support.histories import EXTENT, HEADER, ROWS, WEEKS, csv, parquet, rows_query

UNSURE = "numbers, but not for certain unix times"


def test_first_and_newest_week_and_newest_row_are_found(tmp_path: Path) -> None:
    assert describe_source(csv(tmp_path)) == EXTENT


@pytest.mark.parametrize(
    ("newest", "closed"),
    [("2024-01-06", None), ("2024-01-07", "2024-01-01"), ("2024-01-08", "2024-01-01"), ("2024-02-14", "2024-02-05")],
)
def test_week_closes_with_rows_on_its_sunday_or_later(tmp_path: Path, newest: str, closed: str | None) -> None:
    assert describe_source(csv(tmp_path, f"{HEADER}u,e,2024-01-02\nu,e,{newest}\n")).closed_by_rows == closed


def test_rejected_rows_are_counted_and_otherwise_ignored(tmp_path: Path) -> None:
    bad = "u,e,2300-01-01\n,e,2029-01-01\nu,,2019-01-01\nu,e,\nu,e,soon\nu,e\nu,e,NaN\n"
    extent = describe_source(csv(tmp_path, HEADER + ROWS + bad))
    assert (extent.first_week, extent.newest_row) == (EXTENT.first_week, EXTENT.newest_row)
    assert extent.rejected == {
        "time_out_of_range": 1,
        "missing_user": 1,
        "missing_event": 1,
        "missing_time": 2,
        "unreadable_time": 1,
        "unreadable_line": 1,
    }


def test_digest_ignores_order_format_and_line_ends(tmp_path: Path) -> None:
    digests = source_digests(csv(tmp_path), [*WEEKS, "2024-01-22"])
    assert len(set(digests.values())) == 4
    assert digests["2024-01-22"] == "0-0"
    backwards = HEADER + "\r\n".join(reversed(ROWS.splitlines()))
    assert source_digests(csv(tmp_path, backwards), WEEKS) == {week: digests[week] for week in WEEKS}
    assert source_digests(parquet(tmp_path / "p", rows_query(tmp_path / "p")), WEEKS)[WEEKS[0]] == digests[WEEKS[0]]
    twice = source_digests(csv(tmp_path, HEADER + ROWS + ROWS.splitlines()[0]), WEEKS)
    assert [week for week in WEEKS if twice[week] != digests[week]] == WEEKS[:1]


def test_digests_differ_when_rows_have_exchanged_a_value(tmp_path: Path) -> None:
    one = "a,x,2024-01-01\nb,y,2024-01-02\n"
    others = [
        "a,y,2024-01-01\nb,x,2024-01-02\n",
        "a,x,2024-01-02\nb,y,2024-01-01\n",
        "x,a,2024-01-01\nb,y,2024-01-02\n",
    ]
    assert len({source_digests(csv(tmp_path, HEADER + rows), WEEKS)[WEEKS[0]] for rows in [one, *others]}) == 4


def test_digests_are_the_same_in_another_process(tmp_path: Path) -> None:
    spec = csv(tmp_path)
    names = "from tgn_assets.ml.sources.extent import *; from tgn_assets.ml.sources.spec import *"
    code = f"{names}; print(source_digests(SourceSpec({spec.location!r}), {WEEKS!r}))"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert other.stdout.strip() == str(source_digests(spec, WEEKS))


@pytest.mark.parametrize(
    "later",
    [
        "u,e,1707998400000\n",  # milliseconds after seconds
        'u,"e\ne",2024-02-15T12:00:00Z\n',
        'u,"e,2024-02-15\n',
        "u;e;2024-02-15\r\n",
        "u,e,2024-02-15,surplus\n",
        "u\ré,'e',15.02.2024\n",
    ],
)
def test_later_rows_leave_earlier_weeks_unchanged(tmp_path: Path, later: str) -> None:
    rows = "\n1,007,1704100000\nu1,'e;1',2024-01-09\nu2,e|1\t,2024-01-21 10:00:00\n"
    before = source_digests(csv(tmp_path, HEADER + rows), WEEKS)
    assert source_digests(csv(tmp_path, HEADER + rows + later), WEEKS) == before
    assert source_digests(csv(tmp_path, HEADER + later + rows), WEEKS) == before


def test_a_signature_moves_with_the_files_and_the_columns_only(tmp_path: Path) -> None:
    spec = csv(tmp_path)
    signature = source_signature(spec)
    assert source_signature(spec) == signature
    os.utime(spec.location, ns=(1, 1))
    assert source_signature(spec) != signature
    moved = source_signature(spec)
    assert source_signature(SourceSpec(spec.location, "other")) != moved
    folder = source_signature(SourceSpec(str(tmp_path)))
    csv(tmp_path, name="more.csv")
    assert source_signature(SourceSpec(str(tmp_path))) != folder


def test_a_synthetic_source_has_a_new_signature_every_week() -> None:
    spec, now = SourceSpec("synthetic"), datetime(2024, 1, 1, 12)
    still, moved = datetime(2024, 1, 7, 23), datetime(2024, 1, 8)
    assert source_signature(spec, still) == source_signature(spec, now) != source_signature(spec, moved)


def test_week_numbers_count_from_the_anchor(tmp_path: Path) -> None:
    spec = csv(tmp_path, "ip_address,event_id,week_number\nu,e,9\nu,e,7\nu,e,7.0\n,e,5\nu,e,soon\nu,e,7.5\nu,e,\n")
    assert smallest_week_number(spec) == 7
    anchored = SourceSpec(spec.location, week_number_anchor=(7, "2024-01-01"))
    extent = describe_source(anchored)
    assert (extent.first_week, extent.newest_row) == ("2024-01-01", datetime(2024, 1, 15, tzinfo=UTC))
    assert extent.closed_by_rows == "2024-01-15"  # rows of a numbered week have no Sunday: the calendar closes it
    assert extent.rejected == {"missing_user": 1, "missing_time": 1, "unreadable_time": 2}
    with pytest.raises(SourceError, match="TGN_START_WEEK"):
        describe_source(spec)


def test_week_number_column_may_be_the_timestamp_column(tmp_path: Path) -> None:
    spec = parquet(tmp_path, "SELECT 1 AS ip_address, 2 AS event_id, w AS week_number FROM range(41, 44) AS t(w)")
    assert smallest_week_number(spec) == 41
    named = SourceSpec(spec.location, timestamp_column="week_number", week_number_anchor=(41, "2024-01-01"))
    assert describe_source(named).closed_by_rows == "2024-01-15"


def test_timestamps_go_before_week_numbers(tmp_path: Path) -> None:
    spec = csv(tmp_path, "ip_address,event_id,timestamp,week_number\nu,e,2024-01-03,99\n")
    assert smallest_week_number(spec) is None
    assert describe_source(spec).first_week == "2024-01-01"
    csv(tmp_path, "ip_address,event_id,week_number\nu,e,1\n", "other.csv")
    with pytest.raises(SourceError, match=r"other.csv has no column 'timestamp'"):
        describe_source(SourceSpec(str(tmp_path)))


@pytest.mark.parametrize("numbers", [[50, 51, 52, 1, 2], [53, 1, 9], [202352, 202401], [202401, 202402]])
def test_week_numbers_that_begin_anew_are_refused(tmp_path: Path, numbers: list[int]) -> None:
    spec = csv(tmp_path, "ip_address,event_id,week_number\n" + "".join(f"u,e,{number}\n" for number in numbers))
    with pytest.raises(SourceError, match=r"seem to begin anew with the year .*name a column of dates"):
        smallest_week_number(spec)


@pytest.mark.parametrize("numbers", [range(1, 54), [1, 9, 45, 60], range(1, 53, 3), [50, 53, 54]])
def test_week_numbers_that_may_count_on_are_read(tmp_path: Path, numbers: Sequence[int]) -> None:
    spec = csv(tmp_path, "ip_address,event_id,week_number\n" + "".join(f"u,e,{number}\n" for number in numbers))
    assert smallest_week_number(spec) == numbers[0]


def test_years_and_weeks_are_read_by_a_format(tmp_path: Path) -> None:
    spec = csv(tmp_path, "ip_address,event_id,week_number\nu,e,202352\nu,e,202401\n")
    spec = replace(spec, timestamp_column="week_number", time_style=TimeStyle("%G%V"))
    assert smallest_week_number(spec) is None
    assert sorted(survey_source(spec)[1] or ()) == ["2023-12-25", "2024-01-01"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("u,e,soon\n,e,2024-01-01\nu,e,later", r"none of the 3 rows .* \(unreadable_time 2, missing_user 1\); check"),
        ("1,u,e,2024-01-03", "one line is '1,u,e,2024-01-03': it takes as many values as the first line has names"),
        (r'"u","a \"b\"",2024-01-03', "quote within quotes is written twice"),
        ("u,e,2124020315", "times such as '2124020315' may be numbers.*set TGN_TIMESTAMP_FORMAT if they are a date"),
        ("u,e,2124-02-03", "one is '2124-02-03', which the clock of this machine says is to come"),
        *(
            (f"u,e,{time}", f"unreadable_time 1.*'{time}'; set TGN_TIMESTAMP_FORMAT")
            for time in ("31.12.2023 18:00", "12/31/2023 6:00 PM", "31 Dec 2023")
        ),
        ("u,e,202312311800", f"'202312311800' may be {UNSURE} .* or set TGN_TIMESTAMP_FORMAT"),
        ("u,e,19723", f"unreadable_time 1.*'19723' may be {UNSURE}"),
        ("u,e,638397003000000000", "unreadable_time 1.*'638397003000000000' may be ticks of 100 ns"),
        ("u,e,133485171000000000", "unreadable_time 1.*'133485171000000000' may be ticks of 100 ns"),
        ("u,e,45291.75", "'45291.75' may be days as a spreadsheet counts them: export them as dates"),
    ],
)
def test_a_sample_of_what_cannot_be_used_is_shown(tmp_path: Path, rows: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        describe_source(csv(tmp_path, f"{HEADER}{rows}\n"))


@pytest.mark.parametrize("number", ["soon", "W05", "1.5", "2024-W05"])
def test_week_numbers_without_a_usable_one_are_an_error(tmp_path: Path, number: str) -> None:
    with pytest.raises(SourceError, match=rf"unreadable_time 1.* one is '{number}', and week_number has .*=%G-W%V"):
        smallest_week_number(csv(tmp_path, f"ip_address,event_id,week_number\nu,e,{number}\n"))


def test_a_synthetic_source_has_come_to_the_last_ended_week(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tgn_assets.ml.sources.synthetic.last_ended_week", lambda: "2024-02-05")
    extent = describe_source(SourceSpec("synthetic"))
    assert (extent.first_week, extent.closed_by_rows) == ("2023-08-14", "2024-02-05")
    assert "2024-02-05" <= extent.newest_row.date().isoformat() < "2024-02-12"
    assert describe_source(SourceSpec("synthetic", start_week="2024-01-01")).first_week == "2024-01-01"
    assert describe_source(SourceSpec("synthetic", start_week="2024-02-12")).closed_by_rows is None


def test_synthetic_source_digests_are_stable() -> None:
    spec = SourceSpec("synthetic")
    digests = source_digests(spec, WEEKS)
    assert source_digests(spec, WEEKS[1:]) == {week: digests[week] for week in WEEKS[1:]}
    assert source_digests(spec, []) == {}


def test_a_row_of_the_future_is_rejected_and_closes_no_week(tmp_path: Path) -> None:
    tomorrow, later = (f"{datetime.now(UTC) + timedelta(hours=hours):%Y-%m-%d %H:%M:%S}" for hours in (23, 25))
    extent = describe_source(csv(tmp_path, f"{HEADER}u,e,2024-01-03\nu,e,{tomorrow}\nu,e,{later}\nu,e,2038-01-19\n"))
    assert f"{extent.newest_row:%Y-%m-%d %H:%M:%S}" == tomorrow
    assert extent.rejected == {"time_in_future": 2}


@pytest.mark.parametrize("zero", ["0", "0.0", "1970-01-01", "1970-01-01T00:00:00Z"])
def test_a_time_of_zero_is_a_missing_one(tmp_path: Path, zero: str) -> None:
    extent = describe_source(csv(tmp_path, f"{HEADER}u,e,{zero}\nu,e,2024-01-03\n"))
    assert (extent.first_week, extent.rejected) == ("2024-01-01", {"missing_time": 1})


def test_a_first_row_years_before_the_rest_is_asked_about(tmp_path: Path) -> None:
    spec = csv(tmp_path, f"{HEADER}u,e,1980-01-06\nu,e,1980-01-20\nu,e,2024-01-03\nu,e,2024-01-10\n")
    with pytest.raises(SourceError, match=r"1979-12-31, .* TGN_START_WEEK=2024-01-01 .* or TGN_START_WEEK=1979-12-31"):
        first_week_of(spec)
    assert first_week_of(csv(tmp_path, f"{HEADER}u,e,2020-01-06\nu,e,2024-01-03\n")) == "2020-01-06"


def test_a_format_and_a_zone_say_how_times_are_written(tmp_path: Path) -> None:
    log = csv(tmp_path, f"{HEADER}u,e,01.01.2024 00:30\n")
    style = TimeStyle("%d.%m.%Y %H:%M", "Europe/Berlin")
    assert describe_source(replace(log, time_style=style)).newest_row == datetime(2023, 12, 31, 23, 30, tzinfo=UTC)


def test_parquet_whose_statistics_lie_is_read_by_its_rows(tmp_path: Path) -> None:
    file = tmp_path / "log.parquet"
    query = "SELECT 'u' AS ip_address, 'e' AS event_id, TIMESTAMP '2024-01-07' + INTERVAL (n) DAY AS timestamp"
    copy = f"COPY ({query} FROM range(8) AS t(n)) TO '{file}' (FORMAT parquet, COMPRESSION uncompressed)"
    duckdb.execute(copy)
    last, beyond = (int(datetime(year, 1, 14, tzinfo=UTC).timestamp()) * 10**6 for year in (2024, 9999))
    value, other = struct.pack("<q", last), struct.pack("<q", 20 * beyond)
    assert value in file.read_bytes()
    file.write_bytes(file.read_bytes().replace(value, other, 1))  # the value, not what the footer says of it
    extent = describe_source(SourceSpec(str(file)))
    assert (extent.newest_row.day, extent.rejected) == (13, {"time_out_of_range": 1})


def test_extent_and_digests_come_from_one_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = csv(tmp_path, HEADER + ROWS + ",e,2024-01-02\n,e,2024-01-09\nu,e,soon\n")
    expected = describe_source(spec), source_digests(spec, WEEKS)
    counted = Mock(side_effect=scan)
    monkeypatch.setattr(extent_module, "scan", counted)
    assert survey_source(spec) == expected
    assert (counted.call_count, expected[0].rejected) == (1, {"missing_user": 2, "unreadable_time": 1})
