"""What `tgn check` says of logs whose first week may be a mistake."""

import gzip
from pathlib import Path
from unittest.mock import Mock

import pytest

from tgn_assets.cli import check, refresh, status
from tgn_assets.cli.check import check_sections, source_line, source_section
from tgn_assets.ml.sources import reader
from tgn_assets.settings import Settings
from tgn_assets_tests.cli.commands import tgn
from tgn_assets_tests.support.event_logs import ROWS, WEEKS, home_on_log, ingest


def suspicions(folder: Path, *rows: str, header: str = "ip_address,event_id,timestamp") -> str:
    log = folder / "numbered.csv"
    log.write_text("\n".join([header, *rows]) + "\n")
    home = home_on_log(folder.parent, source=str(folder if folder.name == "log" else log))
    return "\n".join(dict(check_sections(home))["suspicions"])


def test_a_first_week_years_before_the_rest_is_suspicious(tmp_path: Path) -> None:
    assert "TGN_START_WEEK" not in suspicions(tmp_path, *ROWS)
    assert "set TGN_START_WEEK=2024-01-01 to begin there" in suspicions(tmp_path, *ROWS, "u,e,2001-05-03 10:00:00")


def test_numbered_weeks_are_suspicious(tmp_path: Path) -> None:
    rows = [f"user {user},event {user},{week}" for week in (3, 4) for user in range(3)]
    said = suspicions(tmp_path, *rows, header="ip_address,event_id,week_number")
    assert "3 is taken for the week of 2024-01-01" in said


def test_weeks_of_a_whole_year_may_be_those_of_several(tmp_path: Path) -> None:
    rows = [f"u,e,{week}" for week in range(1, 53)]
    header = "ip_address,event_id,week_number"
    assert "several are taken for one; name a column of dates" in suspicions(tmp_path, *rows, header=header)
    assert "several are taken for one" not in suspicions(tmp_path, *rows[:50], header=header)


@pytest.mark.parametrize("packed", [False, True])
def test_a_last_line_without_an_end_may_be_cut(tmp_path: Path, packed: bool) -> None:
    log = tmp_path / ("log.csv.gz" if packed else "log.csv")
    home = home_on_log(tmp_path, source=str(log))

    def said(text: str) -> list[str]:
        log.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
        return list(dict(check_sections(home))["suspicions"])

    text = "ip_address,event_id,timestamp\nu,e,2024-01-31\nv,f,2024-01-2"
    assert [one for one in said(text) if "has no line end and may be cut: is the file whole?" in one]
    assert not [one for one in said(f"{text}9\r\n") if "may be cut" in one]


def test_mostly_unreadable_times_name_the_setting(tmp_path: Path) -> None:
    said = suspicions(tmp_path, "u,e,2024-01-31 12:00:00", "u,e,08.01.2024 12:00", "u,e,09.01.2024 12:00")
    assert "times that cannot be read (2): set TGN_TIMESTAMP_FORMAT" in said


def test_times_counted_from_another_year_are_named(tmp_path: Path) -> None:
    assert "the newest row is of 1993-02-01: numbers may count" in suspicions(tmp_path, "u,e,728524800")
    assert "the newest row" not in suspicions(tmp_path, "u,e,1706745600")


def test_days_as_a_spreadsheet_counts_them_are_named(tmp_path: Path) -> None:
    said = suspicions(tmp_path, "u,e,2024-01-31", "u,e,45322.5", "u,e,45323", "u,e,99999", "u,e,#N/A")
    assert "times such as '45322.5' cannot be read and may be days as a spreadsheet counts them" in said


def test_ids_written_in_two_ways_are_named(tmp_path: Path) -> None:
    ids = ("007", "7", "Anna", "anna", "jose\u0301", "jos\u00e9", "0a", "a")
    said = suspicions(tmp_path, *(f"{one},e,2024-01-31" for one in ids))
    assert "3 user ids are written in more than one way" in said and "'007' and '7'" in said
    assert "event ids are written" not in said


def test_numbers_as_spreadsheets_write_them_are_named(tmp_path: Path) -> None:
    said = suspicions(tmp_path, *(f"{one},e,2024-01-31" for one in ("1e5", "4.00638E+12", "12", "2e")))
    assert "2 of 4 user ids are numbers such as 1e5, as spreadsheets and R write them" in said


@pytest.mark.parametrize("word", ["(not set)", "[NULL]", "<null>", r"\\N", "--", "0", "-1", "0" * 32, "Missing", "N/A"])
def test_words_that_may_mean_no_id_are_named(tmp_path: Path, word: str) -> None:
    assert f"the user ids {word!r} may stand for a missing" in suspicions(tmp_path, *ROWS, f"{word},e,2024-01-02")


@pytest.mark.parametrize("word", ["Nancy", "日本", "❤", "10", "guest 7", "n"])
def test_ids_like_words_for_no_id_are_left_alone(tmp_path: Path, word: str) -> None:
    assert "may stand for" not in suspicions(tmp_path, *ROWS, f"{word},e,2024-01-02")


def test_ids_of_which_none_comes_back_are_named(tmp_path: Path) -> None:
    rows = [f"session {n},e{n % 2},2024-01-31" for n in range(20)]
    assert "no user is in more than one row" in suspicions(tmp_path, *rows)
    assert "more than one row" not in suspicions(tmp_path, *rows, "session 0,e1,2024-01-30")


def test_rows_that_are_there_twice_are_named(tmp_path: Path) -> None:
    assert "4 of 8 rows are like another one" in suspicions(tmp_path, *2 * [f"{u},e,2024-01-31" for u in "abcd"])
    assert "like another one" not in suspicions(tmp_path, *(f"{u},e,2024-01-31" for u in "abcd"))


@pytest.mark.parametrize(("after", "said"), [("2024-02-05", "4 weeks in a row have no rows"), ("2024-01-29", "")])
def test_long_pauses_are_named(tmp_path: Path, after: str, said: str) -> None:
    assert said in (found := suspicions(tmp_path, "u,e,2024-01-03", f"u,e,{after}"))
    assert ("weeks in a row" in found) == bool(said)


def test_files_of_a_folder_that_are_not_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "feb.txt").touch()
    assert "are not read, as their names tell no format: 'feb.txt'" in suspicions(tmp_path / "log", "u,e,2024-01-03")


def test_ids_that_were_quoted_or_escaped_twice_are_named(tmp_path: Path) -> None:
    rows = ['"""u1""",it\'s 5,2024-01-31', "'u2',e,2024-01-31", 'u\\"3,e,2024-01-31', "u4,e,2024-01-31"]
    said = suspicions(tmp_path, *rows)
    assert '3 of 4 user ids have quotes in them, such as "u1": the export may have quoted' in said
    assert "event ids have quotes" not in said


def test_a_check_reads_the_log_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log.csv"
    log.write_text("\n".join(["ip_address,event_id,timestamp", *ROWS]) + "\n")
    counted = Mock(side_effect=reader.expected_rows)
    monkeypatch.setattr(reader, "expected_rows", counted)
    found = dict(check_sections(home_on_log(tmp_path, source=str(log))))
    assert (found["rows"]["usable"], counted.call_count) == (len(ROWS), 1)


def test_the_synthetic_log_is_checked_up_to_its_newest_week(tmp_path: Path) -> None:
    found = dict(check_sections(home_on_log(tmp_path, source="synthetic")))
    assert found["weeks"]["with_rows"] == 26
    assert found["rows"]["usable"] > 0 and found["time"]["last"] is not None
    assert found["rejected"] == []


def test_the_same_file_twice_is_suspicious(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    for name, rows in (("1.csv", ROWS[:8]), ("2.csv", ROWS[8:]), ("2 (1).csv", ROWS[8:])):
        (folder / name).write_text("\n".join(["ip_address,event_id,timestamp", *rows]) + "\n")
    home = home_on_log(tmp_path, source=str(folder))
    said = dict(check_sections(home))["suspicions"]
    assert said == ["the files 2 (1).csv and 2.csv are the same: their rows count twice"]


def test_a_log_that_the_home_refuses_is_suspicious(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    home.start_week()
    ingest(home, *WEEKS)
    (tmp_path / "other.csv").write_text("ip_address,event_id,timestamp\nu,e,2024-01-31\n")
    others = [
        home_on_log(tmp_path, source=str(tmp_path / "other.csv"), start_week=week) for week in (None, "2020-01-06")
    ]
    for other in others:
        assert f"TGN_HOME={home.root} holds the log {tmp_path}/log.csv" in dict(check_sections(other))["suspicions"][0]
    assert dict(check_sections(home))["suspicions"] == []
    new = home_on_log(tmp_path, home=tmp_path / "new", start_week="2010-01-04")
    assert "TGN_START_WEEK=2010-01-04 is 730 weeks before" in dict(check_sections(new))["suspicions"][0]


@pytest.mark.parametrize("of", ["user", "event"])
def test_a_log_of_other_ids_is_refused_by_all_alike(tmp_path: Path, of: str) -> None:
    days = [f"{week[:8]}{int(week[8:]) + 6:02d} 12:00:00" for week in WEEKS]
    rows = [f"user {n},event {n},{day}" for n in range(20) for day in days]
    home = home_on_log(tmp_path, rows)
    ingest(home, *WEEKS)
    others = home_on_log(tmp_path, [row.replace(of, "other") for row in rows])
    said = f"has none of the 20 {of}s that "
    assert said in tgn("check", home=others).stdout
    assert "a run of a week would fail" in (status := tgn("status", home=others).stdout)
    assert said in status
    assert said in tgn("refresh", home=others).stderr
    one_is_left = home_on_log(tmp_path, [rows[0], *(row.replace(of, "other") for row in rows[1:])])
    assert "would fail" not in tgn("status", home=one_is_left).stdout


def test_a_world_that_no_setting_names_is_said_to_be_made_up(tmp_path: Path) -> None:
    named, unnamed = Settings(home=tmp_path, source="synthetic"), Settings(home=tmp_path)
    assert list(source_line(source_section(named))) == ["source     synthetic"]
    said = ["source     synthetic (TGN_SOURCE is not set: a made-up world)"]
    for show in (check.SHOWN, status.SHOWN, refresh.SHOWN):
        assert list(show["source"](source_section(unnamed))) == said
