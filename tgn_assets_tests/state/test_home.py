from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tgn_assets.ml.sources.spec import SourceError
from tgn_assets.run_launcher import WatchfulRunLauncher
from tgn_assets.settings import Settings, SettingsError
from tgn_assets.state import home as home_module
from tgn_assets.state.home import DAGSTER_YAML, Home
from tgn_assets.state.warehouse import StateError
from tgn_assets_tests.support.event_logs import ingest

HEADER = "ip_address,event_id,timestamp\n"


def _home(tmp_path: Path, rows: str = "u,e,2024-01-10 12:00:00\n", **settings: Any) -> Home:
    """A home on a log of `rows`."""
    log = tmp_path / "log.csv"
    log.write_text(HEADER + rows)
    values: dict[str, Any] = {"home": tmp_path / "home", "source": str(log), **settings}
    return Home(Settings(**values))


@pytest.fixture(autouse=True)
def in_february_2024(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_module, "last_ended_week", lambda: "2024-02-05")


def test_the_instance_is_local_and_runs_one_week_at_a_time(tmp_path: Path) -> None:
    with _home(tmp_path).instance() as instance:
        assert instance.root_directory == str(tmp_path / "home" / "dagster")
        assert isinstance(instance.run_launcher, WatchfulRunLauncher)
        assert instance.run_monitoring_enabled
        assert not instance.telemetry_enabled
        queue = instance.get_concurrency_config().run_queue_config
        assert queue and queue.max_concurrent_runs == 1


def test_the_module_makes_the_home_of_the_settings_and_prints_dagster_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)  # where there is no .env
    monkeypatch.setenv("TGN_HOME", str(tmp_path / "new"))
    home_module.main()
    assert capsys.readouterr().out == f"{tmp_path / 'new' / 'dagster'}\n"
    assert (tmp_path / "new" / "dagster" / "dagster.yaml").exists()


def test_making_a_home_again_keeps_what_the_user_edited(tmp_path: Path) -> None:
    home = _home(tmp_path).ensure()
    config = home.dagster_home / "dagster.yaml"
    assert config.read_text() == DAGSTER_YAML.read_text()
    config.write_text("telemetry: {enabled: false}\n")
    assert home.ensure().dagster_home / "dagster.yaml" == config
    assert config.read_text() == "telemetry: {enabled: false}\n"


def test_two_that_make_a_home_at_once_do_not_trip_over_each_other(tmp_path: Path) -> None:
    def runs(_: int) -> int:
        with _home(tmp_path).instance() as instance:
            return instance.get_runs_count()

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(runs, range(2))) == [0, 0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("database is locked", "dagster is locked by another process"),
        ("disk I/O error", "dagster cannot be written to .*: is the disk sound"),
        ("database or disk is full", "the disk of .*dagster is full: make room"),
        ("attempt to write a readonly database", "dagster cannot be written to .*: give this user the right to"),
    ],
)
def test_trouble_with_dagsters_history_names_the_remedy(tmp_path: Path, text: str, said: str) -> None:
    of_sqlalchemy = type("OperationalError", (Exception,), {"__module__": "sqlalchemy.exc"})
    with pytest.raises(StateError, match=said), _home(tmp_path).instance():
        raise of_sqlalchemy(f"(sqlite3.OperationalError) {text}")


def test_an_unusable_folder_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(SettingsError, match=r"TGN_HOME=.*home"):
        _home(tmp_path).ensure()


def test_the_first_week_stays_when_earlier_rows_arrive(tmp_path: Path) -> None:
    assert _home(tmp_path).start_week() == "2024-01-08"
    assert _home(tmp_path, "u,e,2023-12-01 12:00:00\nu,e,2024-01-10 12:00:00\n").start_week() == "2024-01-08"


def test_a_new_home_does_not_begin_years_before_its_log(tmp_path: Path) -> None:
    early = _home(tmp_path, start_week="2004-01-05")
    with pytest.raises(SettingsError, match=r"TGN_START_WEEK=2004-01-05 is 1,044 weeks before .* set it to 2024-01-08"):
        early.newest_closed_week()
    assert _home(tmp_path, start_week="2022-01-03").newest_closed_week() is None


def test_a_home_without_rows_may_turn_to_another_log(tmp_path: Path) -> None:
    assert _home(tmp_path).start_week() == "2024-01-08"
    (tmp_path / "other.csv").write_text(HEADER + "u,e,2023-12-06 12:00:00\n")
    assert _home(tmp_path, source=str(tmp_path / "other.csv")).start_week() == "2023-12-04"


def test_other_settings_of_how_a_log_is_read_find_its_first_week_anew(tmp_path: Path) -> None:
    rows = "u,e,2024-01-31 12:00:00\nu,e,08.01.2024 12:00\n"
    assert _home(tmp_path, rows).start_week() == "2024-01-29"  # of the only row that is understood
    assert _home(tmp_path, rows, timestamp_format="%d.%m.%Y %H:%M").start_week() == "2024-01-08"


def _ingested(tmp_path: Path) -> Home:
    home = _home(tmp_path)
    ingest(home, home.start_week())
    return home


@pytest.mark.parametrize("source", ["other.csv", "synthetic"])
def test_a_home_with_rows_refuses_another_log(tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _ingested(tmp_path)
    Path("other.csv").write_text(HEADER + "someone,else,2024-01-10 12:00:00\n")
    for start in (None, "2024-01-08"):
        other = _home(tmp_path, source=source, start_week=start)
        with pytest.raises(SettingsError, match=r"holds the log .*log.csv with .* set TGN_HOME to a folder of its own"):
            other.source_spec()


def test_a_home_with_rows_refuses_other_columns_of_its_log(tmp_path: Path) -> None:
    _ingested(tmp_path)
    swapped = _home(tmp_path, user_column="event_id", event_column="ip_address")
    with pytest.raises(SettingsError, match="with event_id, ip_address, timestamp has no week with the same rows"):
        swapped.source_spec()
    assert _home(tmp_path).start_week() == "2024-01-08"
    log = Path(_home(tmp_path).settings.source)
    log.write_text(log.read_text().replace("event_id", "item"))
    assert _home(tmp_path, log.read_text().partition("\n")[2]).start_week() == "2024-01-08"


def test_a_home_whose_log_is_not_known_compares_the_rows(tmp_path: Path) -> None:
    home = _ingested(tmp_path)
    (home.root / "log.json").unlink()
    assert home.source_spec().location == str(tmp_path / "log.csv")
    (home.root / "log.json").unlink()
    with pytest.raises(SettingsError, match="of an unknown source"):
        _home(tmp_path, "someone,else,2024-01-10 12:00:00\n").source_spec()


def test_the_same_log_elsewhere_keeps_its_first_week(tmp_path: Path) -> None:
    _ingested(tmp_path)
    (tmp_path / "moved.csv").write_text(HEADER + "u,e,2023-12-06 12:00:00\nu,e,2024-01-10 12:00:00\n")
    assert _home(tmp_path, source=str(tmp_path / "moved.csv")).start_week() == "2024-01-08"


def test_spellings_of_a_path_are_one_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _ingested(tmp_path)
    (tmp_path / "log.csv").write_text(HEADER + "all,new,2023-12-06 12:00:00\n")
    for source in ("log.csv", "./log.csv"):
        assert Home(Settings(home=tmp_path / "home", source=source)).start_week() == "2024-01-08"


def test_the_setting_goes_before_the_first_week_of_the_source(tmp_path: Path) -> None:
    assert _home(tmp_path, start_week="2024-01-22").start_week() == "2024-01-22"


def test_threads_that_ask_at_once_agree_on_the_first_week(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weeks = iter(["2024-01-08", "2024-01-15", "2024-01-22", "2024-01-29"])
    monkeypatch.setattr(Home, "_first_week", lambda self: next(weeks))
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: _home(tmp_path).start_week(), range(4)))) == 1


def test_a_synthetic_world_starts_half_a_year_ago_and_stays_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = _home(tmp_path, source="synthetic")
    assert home.start_week() == "2023-08-14"  # 26 weeks, the last of which is 2024-02-05
    monkeypatch.setattr(home_module, "last_ended_week", lambda: "2024-03-04")
    assert home.start_week() == "2023-08-14"
    assert home.source_spec().start_week == "2023-08-14"


def test_week_numbers_count_from_the_smallest_one_ever_seen(tmp_path: Path) -> None:
    log = tmp_path / "weeks.csv"
    log.write_text("ip_address,event_id,week_number\nu,e,7\nu,e,9\n")
    home = _home(tmp_path, source=str(log))
    assert home.start_week() == "2024-01-01"
    log.write_text("ip_address,event_id,week_number\nu,e,5\nu,e,9\n")
    assert home.source_spec().week_number_anchor == (7, "2024-01-01")
    dated = _home(tmp_path, source=str(log), start_week="2023-01-02")
    assert (dated.start_week(), dated.source_spec().week_number_anchor) == ("2023-01-02", (7, "2023-01-02"))


@pytest.mark.parametrize(
    ("newest_row", "week"),
    [
        ("2024-01-13 23:59:59", None),  # Saturday: the first week is not over
        ("2024-01-14 00:00:00", "2024-01-08"),  # its Sunday
        ("2024-01-15 00:00:00", "2024-01-08"),  # a later row
        ("2024-02-29 00:00:00", "2024-02-05"),  # the calendar has come no further
    ],
)
def test_a_week_is_closed_by_a_row_on_its_sunday_or_later(tmp_path: Path, newest_row: str, week: str | None) -> None:
    assert _home(tmp_path, f"u,e,2024-01-10 12:00:00\nu,e,{newest_row}\n").newest_closed_week() == week


def test_missing_source_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="TGN_SOURCE"):
        _home(tmp_path, source=str(tmp_path / "missing.csv")).start_week()


def test_closed_weeks_lie_between_the_first_and_the_last(tmp_path: Path) -> None:
    rows = "u,e,2024-01-10 12:00:00\nu,e,2024-01-17 12:00:00\n"
    assert _home(tmp_path, rows).newest_closed_week() == "2024-01-08"
    assert _home(tmp_path, rows, end_week="2024-01-15").newest_closed_week() == "2024-01-15"
    assert _home(tmp_path, rows, end_week="2024-01-22").newest_closed_week() == "2024-01-08"
    more = rows + "u,e,2024-01-31 12:00:00\n"
    assert _home(tmp_path, more, end_week="2024-01-15").newest_closed_week() == "2024-01-15"
    assert _home(tmp_path, more, start_week="2024-01-29").newest_closed_week() is None


def test_numbered_weeks_close_with_the_calendar(tmp_path: Path) -> None:
    log = tmp_path / "weeks.csv"
    log.write_text("ip_address,event_id,week_number\nu,e,7\nu,e,9\n")
    assert _home(tmp_path, source=str(log)).newest_closed_week() == "2024-01-15"
