from datetime import datetime
from pathlib import Path

import duckdb
import pytest

from tgn_assets.ml.sources.extent import describe_source
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets.ml.sources.timestamp_sql import (
    DAY_BEFORE_MONTH_REMEDY,
    NUMBER_REMEDY,
    PLAIN,
    SEPARATED_REMEDY,
    ZONE_REMEDY,
    TimeStyle,
    number_sql,
    time_remedy,
    timestamp_sql,
    unread_times,
    week_sql,
    week_start_sql,
)

NOON = datetime(2024, 1, 1, 12)


def read(value: str, dtype: str = "VARCHAR", style: TimeStyle = PLAIN) -> datetime | None:
    """What `value` (SQL) is read as."""
    with duckdb.connect() as con:
        con.execute("SET TimeZone = 'UTC'")
        query = f"SELECT value, {number_sql('value', dtype)} AS number FROM (SELECT CAST({value} AS {dtype}) AS value)"
        return con.execute(f"SELECT {timestamp_sql('value', 'number', dtype, style)} FROM ({query})").fetchall()[0][0]


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01 12:00:00",
        "2024-01-01T12:00:00",
        "2024-01-01T12:00:00Z",
        "2024-01-01 12:00",
        "2024-01-01T12:00:00.000",
        "2024-01-01T12:00:00.000000Z",
        "2024-01-01 12:00:00+00:00",
        "2024-01-01T14:00:00+02:00",
        "2024-01-01 14:00:00+02",
        "2024-01-01T06:30:00-0530",
        "2024-01-01 13:00:00 Europe/Berlin",
        "2024/01/01 12:00:00",
        " 2024-01-01 12:00:00 ",
        "1704110400",
        " 1704110400 ",
        "1704110400.0",
        "1.7041104e9",
        "1704110400000",
        "1704110400000000",
        "1704110400000000000",
        "2024-01-01 14:00:00 +0200",
        "2024-01-01 14:00:00 +02:00",
        "2024-01-01 12:00:00,000",
        "2024-01-01T14:00:00,000+02:00",
    ],
)
def test_text_of_any_usual_kind_is_read_as_the_moment_it_names(text: str) -> None:
    assert read(f"'{text}'") == NOON


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01 14:00:00 Etc/GMT-2",
        "2024-01-01 07:00:00 America/Port-au-Prince",
        "2024-01-01 17:00:00 UTC+5",
        "2024-01-01 12:00 gmt",
        "2024-01-01 12:00:00Z",
    ],
)
def test_a_zone_in_the_text_wins_over_that_of_the_style(text: str) -> None:
    assert read(f"'{text}'") == read(f"'{text}'", style=TimeStyle(zone="Europe/Berlin")) == NOON


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
@pytest.mark.parametrize("behind", ["BST", "CST", "EST5EDT", "IST", "PM", "P.M.", "+25:00", "(UTC)"])
def test_what_may_be_several_zones_or_none_is_not_read(behind: str, zone: str | None) -> None:
    assert read(f"'2024-01-01 12:00:00 {behind}'", style=TimeStyle(zone=zone)) is None


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("2024-01-01 12:00:00 BST", ZONE_REMEDY),
        ("240101120000", NUMBER_REMEDY),
        ("45322,5", SEPARATED_REMEDY),
        ("1,704,067,200", SEPARATED_REMEDY),
        ("1.704.067.200", SEPARATED_REMEDY),
        ("2024,01", SEPARATED_REMEDY),
        ("01.02.2024", None),
        ("2024-25-01 12:00", DAY_BEFORE_MONTH_REMEDY),
        ("2024-13-13", None),
        ("2024-01-01 12:00:00 PM", None),
        ("2024-01-01 12:00:00+25:00", None),
        ("2024-01-01 12:00:00 Europe/Berlin", None),
    ],
)
def test_the_remedy_is_of_what_the_text_may_be(text: str, remedy: str | None) -> None:
    assert time_remedy(text) == remedy


def test_twelve_digits_that_may_be_a_second_are_not_read() -> None:
    assert read("240203150405", "BIGINT") is read("'240203150405'") is read("240203150405", "DOUBLE") is None
    assert read("240203156405", "BIGINT") == datetime(1977, 8, 12, 3, 5, 56, 405000)  # no hour has 64 minutes


def test_short_text_with_an_offset_is_read() -> None:
    assert read("'2024-01-01 14:00+02'") == NOON  # as long as 2024-01-01 14:00:00
    assert read("'2024-1-1 14:0+02:00'") == NOON


def test_a_date_is_its_first_moment() -> None:
    assert read("'2024-01-01'") == read("'2024-01-01'", "DATE") == datetime(2024, 1, 1)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ("'2024-01-01 12:00:00'", "TIMESTAMP"),
        ("'2024-01-01 12:00:00'", "TIMESTAMP_S"),
        ("'2024-01-01 12:00:00'", "TIMESTAMP_NS"),
        ("'2024-01-01 14:00:00+02'", "TIMESTAMP WITH TIME ZONE"),
        ("1704110400", "INTEGER"),
        ("1704110400", "UBIGINT"),
        ("1704110400000", "BIGINT"),
        ("1704110400000000", "BIGINT"),
        ("1704110400000000000", "BIGINT"),
        ("1704110400", "DOUBLE"),
        ("1704110400000", "DOUBLE"),
        ("1704110400.000", "DECIMAL(18,3)"),
    ],
)
def test_columns_of_times_and_of_numbers_are_read(value: str, dtype: str) -> None:
    assert read(value, dtype) == NOON


def test_fractions_of_a_second_are_kept_to_the_microsecond() -> None:
    assert read("'2024-01-01T12:00:00.123456Z'") == read("'1704110400.123456'") == NOON.replace(microsecond=123456)
    assert read("1704110400123", "BIGINT") == NOON.replace(microsecond=123000)


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "-infinity", "2024-02-30", "2024-13-01", "12:00:00", "now"])
def test_what_is_no_time_is_null(text: str) -> None:
    assert read(f"'{text}'") is None


def test_a_number_that_is_none_is_null() -> None:
    assert read("'nan'", "DOUBLE") is read("'infinity'", "DOUBLE") is None


@pytest.mark.parametrize("value", ["-1", "-1e300", "'-5'::INTEGER"])
def test_a_time_before_1970_stays_before_however_far_off(value: str) -> None:
    found = read(value, "DOUBLE")
    assert found is not None and found < datetime(1970, 1, 1)


@pytest.mark.parametrize("value", ["7258118400", "1e300", "1e11"])
def test_a_time_from_2200_on_stays_after_however_far_off(value: str) -> None:
    found = read(value, "DOUBLE")
    assert found is not None and found >= datetime(2200, 1, 1)


def test_seconds_or_milliseconds_is_decided_per_row() -> None:
    assert read("1e11 + 1", "DOUBLE") == datetime(1973, 3, 3, 9, 46, 40, 1000)
    assert read("1704110400", "DOUBLE") == read("1704110400e3", "DOUBLE")


@pytest.mark.parametrize(
    ("value", "dtype"), [("'20240229'", "VARCHAR"), ("20240229", "INTEGER"), ("20240229", "DOUBLE")]
)
def test_eight_digits_are_a_day(value: str, dtype: str) -> None:
    assert read(value, dtype) == datetime(2024, 2, 29)
    assert read(value, dtype, TimeStyle(zone="Europe/Berlin")) == datetime(2024, 2, 28, 23)


@pytest.mark.parametrize("text", ["1.704E+12", "1.704067e+09", "1.7E9"])
def test_numbers_whose_last_digits_are_lost_are_not_read(text: str) -> None:
    assert read(f"'{text}'") is None
    assert "numbers that were shortened" in str(unread_times([text]))
    assert read("'1.7041104E+12'") == NOON  # digits enough for the minute


@pytest.mark.parametrize("digits", ["20240230", "20241301", "99999999", "202401", "2024", "202401011200"])
def test_digits_that_may_be_a_date_are_no_unix_time(digits: str) -> None:
    assert read(digits, "BIGINT") is read(f"'{digits}'") is None


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        ("'2024-01-01 13:00:00'", "VARCHAR"),
        ("'2024-01-01T13:00'", "VARCHAR"),
        ("'2024-01-01 13:00:00.000'", "VARCHAR"),
        ("'2024-01-01 13:00:00'", "TIMESTAMP"),
        ("'2024-01-01 12:00:00Z'", "VARCHAR"),
        ("'2024-01-01 12:00:00.0Z'", "VARCHAR"),
        ("'2024-01-01 14:00:00+02'", "VARCHAR"),
        ("'2024-01-01 04:00:00 America/Los_Angeles'", "VARCHAR"),
        ("'2024-01-01 12:00:00+00'", "TIMESTAMP WITH TIME ZONE"),
        ("1704110400", "BIGINT"),
    ],
)
def test_a_zone_is_that_of_times_without_an_offset(value: str, dtype: str) -> None:
    assert read(value, dtype, TimeStyle(zone="Europe/Berlin")) == NOON


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ("01.01.2024 12:00", "%d.%m.%Y %H:%M"),
        ("1/1/2024 12:00:00 PM", "%-m/%-d/%Y %I:%M:%S %p"),
        (" Jan 1, 2024 12:00", "%b %-d, %Y %H:%M"),
        ("202401011200", "%Y%m%d%H%M"),
        ("01.01.2024 14:00 +0200", "%d.%m.%Y %H:%M %z"),
        ("it's 2024-01-01 12", "it's %Y-%m-%d %H"),
    ],
)
def test_a_format_reads_what_it_describes_and_nothing_else(text: str, format: str) -> None:
    style = TimeStyle(format)
    assert read("'" + text.replace("'", "''") + "'", style=style) == NOON
    assert read("'2024-01-01 12:00:00'", style=style) is None
    assert read("'2024-01-01 12:00:00'", "TIMESTAMP", style) == NOON


@pytest.mark.parametrize(
    ("day", "monday"), [("2024-01-01", "2024-01-01"), ("2024-01-07", "2024-01-01"), ("1970-01-01", "1969-12-29")]
)
def test_a_week_begins_on_monday(day: str, monday: str) -> None:
    found = duckdb.execute(
        f"SELECT {week_sql('day')}::VARCHAR FROM (SELECT TIMESTAMP '{day} 23:59:59' AS day)"
    ).fetchone()
    assert found == (monday,)


def test_week_number_counts_weeks_from_the_anchor() -> None:
    sql = week_start_sql("number", (7, "2024-01-01"))
    found = duckdb.execute(f"SELECT {sql} FROM unnest([7, 9, 0, 7.5, 'nan', 1e300]::DOUBLE[]) AS t(number)").fetchall()
    mondays = [datetime(2024, 1, 1), datetime(2024, 1, 15), datetime(2023, 11, 13), None, None, datetime(2200, 1, 1)]
    assert [moment for (moment,) in found] == mondays


def test_a_zone_that_duckdb_does_not_know_names_the_setting(tmp_path: Path) -> None:
    (file := tmp_path / "log.csv").write_text("ip_address,event_id,timestamp\nu,e,2024-01-03\n")
    with pytest.raises(SourceError, match=r"TGN_TIME_ZONE=right/UTC cannot be used .*IANA name"):
        describe_source(SourceSpec(str(file), time_style=TimeStyle(zone="right/UTC")))
