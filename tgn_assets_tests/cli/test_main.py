"""The verbs, on a log of four weeks; one backtest is real, the other homes are made without training."""

import fcntl
import json
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import sys
import termios
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest.mock import Mock

import dagster as dg
import duckdb
import pandas as pd
import pytest

from tgn_assets.automation.backlog import Backlog
from tgn_assets.automation.runs import ENDED_EARLY, failure_message, run_request
from tgn_assets.cli.console import fitted
from tgn_assets.ml.sources import reader
from tgn_assets.ml.sources.synthetic import generate_week
from tgn_assets.state.home import Home
from tgn_assets.state.resources import policy_files
from tgn_assets_tests.cli.commands import NO_REASON, ROOT, published, start_tgn, tgn
from tgn_assets_tests.support.event_logs import ROWS, WEEKS, asked, home_on_log, ingest, publish, weekly_refresh

pytestmark = pytest.mark.usefixtures("no_settings")


def test_the_generated_log_has_the_default_column_names() -> None:
    result = tgn("generate", "--weeks", "2", "--start-week", "2024-01-01")
    assert result.exit_code == 0
    header, *rows = result.stdout.splitlines()
    first, second = generate_week("2024-01-01"), generate_week("2024-01-08")
    assert header == "ip_address,event_id,timestamp"
    assert len(rows) == len(first) + len(second)
    assert rows[0] == f"{first.user_id[0]},{first.event_id[0]},{first.ts[0]}"


def test_another_seed_is_another_log_and_the_same_seed_the_same() -> None:
    one, again, other = (
        tgn("generate", "--weeks", "1", "--start-week", "2024-01-01", "--seed", seed).stdout for seed in "001"
    )
    assert one == again != other


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    writer = start_tgn(Home(home_on_log(tmp_path).settings), "generate", "--weeks", "9")
    assert writer.stdout and writer.stderr
    assert writer.stdout.readline() == "ip_address,event_id,timestamp\n"
    writer.stdout.close()
    assert (writer.stderr.read(), writer.wait()) == ("", 0)


def test_sigterm_ends_a_command_with_a_word(tmp_path: Path) -> None:
    writer = start_tgn(Home(home_on_log(tmp_path).settings), "generate", "--weeks", "999")
    assert writer.stdout and writer.stderr
    assert writer.stdout.readline() == "ip_address,event_id,timestamp\n"
    writer.terminate()
    assert "interrupted; nothing was left half done\n" in writer.communicate(timeout=60)[1]
    assert writer.returncode == 130


@pytest.mark.parametrize(
    ("arguments", "code"),
    [("status", 0), ("status --json", 0), ("top5 'user 1'", 0), ("models unpin", 0), ("doctor", 1)],
)
def test_a_reader_that_has_gone_changes_no_exit_code(tgn: Path, tmp_path: Path, arguments: str, code: int) -> None:
    home = published(home_on_log(tmp_path))
    if code:
        shutil.rmtree(home.root)
    reader, writer = os.pipe()
    os.close(reader)
    command = [str(tgn), *shlex.split(arguments)]
    environment = os.environ | {"TGN_HOME": str(home.root), "TGN_SOURCE": home.settings.source}
    ended = subprocess.run(command, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert (ended.returncode, ended.stderr) == (code, "")


@pytest.mark.parametrize(
    ("arguments", "to", "code"),
    [
        ("generate --weeks 1", "/dev/full", 1),
        ("--help", "/dev/full", 1),
        ("generate --weeks 1", "&-", 0),
        ("generate --weeks 1", "&- 2>&- <&-", 0),
    ],
)
def test_full_output_is_one_line_and_closed_output_quiet(tmp_path: Path, arguments: str, to: str, code: int) -> None:
    command = f"exec {shlex.quote(sys.executable)} -m tgn_assets.cli.main {arguments} >{to}"
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TGN_HOME": str(tmp_path)}
    ended = subprocess.run(["bash", "-c", command], env=environment, stderr=subprocess.PIPE, text=True, timeout=60)
    assert ended.returncode == code, ended.stderr
    assert bool(re.fullmatch(r"Error: .*No space left on device.*\n", ended.stderr)) == (code == 1)
    assert code or ended.stderr == ""


def test_help_does_not_wait_for_dagster_or_torch() -> None:
    code = (
        "import sys, tgn_assets.cli.main; sys.exit(bool({'dagster', 'torch', 'pandas', 'duckdb'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("refresh", "--week", "2024-01-02"), "2024-01-02 is a Tuesday; a week is named by its Monday, 2024-01-01"),
        (("refresh", "--week", "soon"), "'soon' is no date"),
        (("refresh", "--week", "2023-12-25"), "before the first week, 2024-01-01"),
        (("refresh", "--week", "2099-12-28"), "has not closed yet"),
        (("backtest",), "Missing option '--weeks'"),
        (("backtest", "--weeks", "0"), "not in the range"),
        (("backtest", "--weeks", "4"), "scoring 4 weeks takes 5 closed ones; the source has 4"),
        (("top5",), "Missing argument 'USER'"),
        (("retrain",), "No such command 'retrain'"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_the_reason(tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    result = tgn(*arguments, home=home_on_log(tmp_path))
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())


def test_a_missing_source_is_one_line_that_names_the_setting(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    (tmp_path / "log.csv").unlink()
    for command in ("refresh", "status", "status --json"):
        result = tgn(*command.split(), home=home)
        assert result.exit_code == 1
        assert re.fullmatch(r"(reading the source.*\n)*Error: TGN_SOURCE=.*log.csv does not exist.*\n", result.stderr)
    assert result.stdout == ""  # not a part of a document
    assert "Traceback" in tgn("refresh", "--verbose", home=home).stderr


def test_a_misspelt_setting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGN_SOURC", "log.csv")
    result = tgn("status")
    assert (result.exit_code, result.stderr) == (1, "Error: TGN_SOURC is not a setting; did you mean TGN_SOURCE?\n")


def test_a_log_without_a_closed_week_says_what_it_lacks(tmp_path: Path) -> None:
    result = tgn("refresh", home=home_on_log(tmp_path, ["user,event,2024-01-03 12:00:00"]))
    assert result.exit_code == 1
    assert "no week has closed yet" in result.stderr


@pytest.mark.parametrize(
    ("kind", "text"), [(duckdb.InterruptException, "INTERRUPT Error"), (RuntimeError, "Query interrupted")]
)
def test_ctrl_c_within_a_query_is_no_fault_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception], text: str
) -> None:
    monkeypatch.setattr(reader, "expected_rows", Mock(side_effect=kind(text)))
    result = tgn("check", home=home_on_log(tmp_path))
    assert (result.exit_code, result.stderr) == (130, "interrupted; nothing was left half done\n")


def test_status_says_what_is_there_and_what_to_do(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    fresh = tgn("status", home=home)
    assert fresh.exit_code == 0
    assert "published  nothing yet" in fresh.stdout
    assert "2024-01-01..2024-01-15 are not ingested" in fresh.stdout
    assert "2024-01-22 has no predictions: the sensor does it, or `tgn refresh`" in fresh.stdout
    done = tgn("status", home=published(home)).stdout
    assert "2024-01-01 to 2024-01-22 are closed; 4 of 4 are ingested" in done
    assert "the newest at the close of 2024-01-22 for the week of 2024-01-29" in done
    assert "nothing: every closed week is complete" in done
    home.warehouse().record_made("trained_ranker", {WEEKS[3]: "another"})
    stale = tgn("status", home=home).stdout
    assert f"{WEEKS[3]} temporal_embeddings, weekly_top5_predictions, weekly_report were made from something" in stale
    home_on_log(tmp_path, [*ROWS, f"late user,event 1,{WEEKS[1]} 08:00:00"])
    assert "2024-01-08 has changed in the source since ingested" in tgn("status", home=home).stdout


def test_status_says_that_the_process_of_a_run_was_killed(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    with home.instance() as instance:
        run = instance.create_run_for_job(weekly_refresh, tags={"dagster/partition": WEEKS[3]})
        instance.report_run_failed(run)  # as Dagster's code server does for a process that is gone
        assert failure_message(instance, run) == ENDED_EARLY
    assert f"{ENDED_EARLY} (run {run.run_id[:8]})" in tgn("status", home=home).stdout


def test_status_speaks_of_one_week_to_ingest_as_of_one(tmp_path: Path) -> None:
    status = tgn("status", home=home_on_log(tmp_path, [row for row in ROWS if WEEKS[2] > row.split(",")[2]])).stdout
    assert f"{WEEKS[0]} is not ingested" in status


@pytest.mark.parametrize(
    ("ended", "said"), [(dg.DagsterRunStatus.CANCELED, "it was stopped"), (dg.DagsterRunStatus.FAILURE, "it failed")]
)
def test_status_says_what_the_sensor_leaves_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ended: dg.DagsterRunStatus, said: str
) -> None:
    ingest(home := home_on_log(tmp_path), WEEKS[0])
    publish(home, *WEEKS[1:])
    home_on_log(tmp_path, [*ROWS, f"late user,event 1,{WEEKS[3]} 08:00:00"])
    [item] = Backlog(home).work_items()
    with home.instance() as instance:
        run = asked(instance, run_request(instance, item), ended)
        asked(instance, run_request(instance, replace(item, first=WEEKS[0], last=WEEKS[0])), ended)
    status = tgn("status", home=home).stdout
    assert f"failed     {WEEKS[3]}" in status and f"{said} (run {run.run_id[:8]})" in status
    assert f"{WEEKS[3]} has changed in the source since ingested: `tgn refresh` does it, the sensor does not" in status
    assert (f"failed     {WEEKS[0]}" in status) == (ended == dg.DagsterRunStatus.FAILURE)
    monkeypatch.setattr("tgn_assets.cli.status.SAID_FOR", timedelta(0))
    assert f"failed     {WEEKS[0]}" not in tgn("status", home=home).stdout  # before the first published one
    publish(home, WEEKS[3])
    assert ("failed" in tgn("status", home=home).stdout) == (ended == dg.DagsterRunStatus.FAILURE)


def test_a_run_killed_after_all_was_made_left_nothing_to_do(tmp_path: Path) -> None:
    home = published(home_on_log(tmp_path))
    with home.instance() as instance:
        tags = {"dagster/partition": WEEKS[3]}
        run = instance.create_run_for_job(weekly_refresh, tags=tags, status=dg.DagsterRunStatus.STARTED)
        instance.report_run_failed(run, "the process of this run is gone")
    assert "failed" not in tgn("status", home=home).stdout
    home.warehouse().record_made("trained_ranker", {WEEKS[3]: "another"})
    assert f"failed     {WEEKS[3]}" in tgn("status", home=home).stdout


@pytest.mark.parametrize(
    "command", ["check", "status", "top5 u", "report", "export", "models list", "models unpin", "models rollback"]
)
def test_a_command_that_reads_makes_no_home(tmp_path: Path, command: str) -> None:
    home = home_on_log(tmp_path)
    shutil.rmtree(home.root)
    result = tgn(*command.split(), home=home)
    assert not home.root.exists()
    said = f"there is no folder TGN_HOME={home.root}; `tgn refresh` makes it"
    if command == "status":
        assert f"home       {home.root}\n" in result.stdout and f"look at    {said}\n" in result.stdout
        assert "published  nothing yet" in result.stdout and "2024-01-22 has no predictions" in result.stdout
    elif command != "check":
        assert (result.exit_code, result.stderr) == (1, f"Error: {said}\n")


def test_a_changed_policy_is_pending_for_the_newest_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, (lists, pages) = published(home_on_log(tmp_path)), ("weekly_top5_predictions", "weekly_report")
    home.warehouse().record_made(lists, {WEEKS[3]: "lists"}, settings=policy_files(home).digest(WEEKS[3]))
    home.warehouse().record_made(pages, {WEEKS[3]: "a page"})
    assert "every closed week is complete" in tgn("status", home=home).stdout
    monkeypatch.setenv("TGN_DENY_EVENTS", "event 1")
    assert f"{WEEKS[3]} {lists}, {pages} were made from something older" in tgn("status", home=home).stdout
    monkeypatch.setenv("TGN_DENY_EVENTS", "event 1,Event 1")
    assert "look at    TGN_DENY_EVENTS names 1 of 2 ids that no event" in tgn("status", home=home).stdout
    monkeypatch.setenv("TGN_DENY_EVENTS", "recalled.txt")  # a run is pending, which will say so, too
    status = tgn("status", home=home).stdout
    assert f"{WEEKS[3]} {lists}, {pages}" in status
    assert "look at    TGN_DENY_EVENTS=recalled.txt is no file" in status
    monkeypatch.setenv("TGN_EVENT_FEATURES", "prices.csv")
    said = "look at    TGN_EVENT_FEATURES=prices.csv is no file"
    assert said in tgn("status", home=home_on_log(tmp_path, event_features="prices.csv")).stdout


def test_a_week_whose_models_are_no_longer_kept_is_made_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = published(home_on_log(tmp_path))
    home.warehouse().record_made("trained_gnn", {WEEKS[3]: "after a run that was killed"})
    assert f"{WEEKS[3]} trained_ranker, temporal_embeddings" in tgn("status", home=home).stdout
    monkeypatch.setenv("TGN_KEEP_WEEKS", "26")
    assert f"{WEEKS[3]} its assets were made from something older" in tgn("status", home=home).stdout


def test_lists_that_took_the_place_of_others_are_marked(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    publish(home, *WEEKS)
    assert json.loads(tgn("status", "--json", home=home).stdout)["replaced"] == []
    home.warehouse().record_made("weekly_top5_predictions", {WEEKS[2]: "others"})
    home.warehouse().record_made("weekly_top5_predictions", {WEEKS[2]: "others"})
    (replaced,) = json.loads(tgn("status", "--json", home=home).stdout)["replaced"]
    assert (replaced["week"], replaced["replaced"]) == (WEEKS[2], 1)
    assert replaced["first_published_at"] < replaced["published_at"]
    text = f"the lists of {WEEKS[2]} took the place of others at "
    assert f"replaced   {text}" in tgn("status", home=home).stdout
    score = {"week": WEEKS[3], "model": "tgn_assets", "segment": "all", "metric": "ndcg", "value": 0.5, "users": 4}
    home.warehouse().replace_week_tables(
        WEEKS[3], {"eval_metrics": pd.DataFrame([score | {"ci_low": 0.4, "ci_high": 0.6}])}
    )
    assert tgn("report", "--week", WEEKS[3], "--out", "page.html", home=home).exit_code == 0
    assert text in (tmp_path / "page.html").read_text()


def test_status_says_which_env_file_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = home_on_log(tmp_path)
    assert f"settings   of the environment; there is no .env in {tmp_path}" in tgn("status", home=home).stdout
    (tmp_path / ".env").write_text("TGN_K=3\n")
    assert f"settings   of the environment and {tmp_path / '.env'}" in tgn("check", home=home).stdout
    monkeypatch.setenv("TGN_COLOUR", "red")
    assert "look at    TGN_COLOUR is no setting: nothing reads it" in tgn("check", home=home).stdout
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert f"{tmp_path / '.env'} is not read, since this is {tmp_path / 'below'}" in tgn("check", home=home).stdout


def test_errors_are_wrapped_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    message, begin = "TGN_SOURCE=log.csv " + "cannot be read " * 20, "Error: "
    assert fitted(message, begin, "") == message
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    lines = (begin + fitted(f"{message}\nThe option", begin, "")).split("\n")
    assert max(map(len, lines)) <= 80 and lines[-1] == "The option"
    assert " ".join(lines[:-1]).split() == ["Error:", *message.split()]


def test_status_on_a_terminal_fits_its_80_columns(tmp_path: Path) -> None:
    home = published(home_on_log(tmp_path, [*ROWS, f",event 1,{WEEKS[0]} 08:00:00"]))
    screen, stdout = pty.openpty()
    fcntl.ioctl(stdout, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    environment |= {"TGN_HOME": str(home.root), "TGN_SOURCE": home.settings.source, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tgn_assets.cli.main", "status"]
    subprocess.run(command, env=environment, stdin=stdout, stdout=stdout, check=True)
    os.close(stdout)
    lines = os.read(screen, 10_000).decode().splitlines()
    os.close(screen)
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= 80
    assert f"source     {home.settings.source}" in lines
    assert "published  1 week, the newest at the close of 2024-01-22 for the week of" in lines


def test_json_is_one_document_with_its_documented_keys(tmp_path: Path) -> None:
    home = published(home_on_log(tmp_path, [*ROWS, f",event 1,{WEEKS[0]} 08:00:00"]))
    page = (ROOT / "docs" / "operations.md").read_text()
    documents = {}
    for command, *options in (["status"], ["check"], ["refresh", "--if-needed"]):
        result = tgn(command, *options, "--json", home=home)
        documents[command] = json.loads(result.stdout)
        (row,) = re.findall(rf"^\| `{command}` \| (.*) \|$", page, re.MULTILINE)
        keys = re.sub(r" \([^)]*\)", "", row.partition(";")[0])  # what they hold is in brackets
        assert list(documents[command]) == re.findall(r"`(\w+)`", keys)
    assert documents["status"]["unused_rows"] == {
        "rejected": {"missing_user": 1},
        "before_first_week": 0,
        "after_last_week": 0,
        "rejected_outside": {},
    }
    assert documents["status"]["weeks"] == {"first": WEEKS[0], "newest": WEEKS[3], "closed": 4, "ingested": 4}
    assert documents["check"]["rows"] == {"usable": 16, "users": 4, "events": 3}
    shown = json.loads(re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0])
    top5 = json.loads(tgn("top5", "user 1", "--json", home=home).stdout)
    assert list(top5) == list(shown)
    assert top5["list"][2] == {"rank": 3, "event_id": "event 2", "score": 1 / 3, "source": "tgn_assets"} | NO_REASON
    assert list(top5["list"][2]) == list(shown["list"][0])


def test_rows_after_the_last_week_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = [f"late,event 1,{WEEKS[3]} 08:00:00", f",event 1,{WEEKS[3]} 09:00:00"]
    home = home_on_log(tmp_path, [*ROWS, *late], end_week=WEEKS[2])
    monkeypatch.setenv("TGN_END_WEEK", WEEKS[2])
    ingest(home, WEEKS[2])
    status = tgn("status", home=home).stdout
    assert "not used   5 rows of weeks after TGN_END_WEEK" in status
    assert "not used   1 row of earlier or later weeks that could not be used (missing_user 1)" in status
    assert "not used   5 rows of weeks after TGN_END_WEEK" in tgn("check", home=home).stdout


def test_check_says_what_was_understood_and_stores_nothing(tmp_path: Path) -> None:
    odd = ["unknown,event 1,2024-01-02", " user 1,event 1,2024-01-02", ",event 1,2024-01-02", "user 1,event 1,soon"]
    result = tgn("check", home=home_on_log(tmp_path, [*ROWS, *odd, "user 1,event 1,2038-01-19"]))
    assert result.exit_code == 0, result.output
    assert "18 can be used, of 6 users and 3 events" in result.stdout
    assert "2024-01-02 00:00 to 2024-01-28 12:00 UTC" in result.stdout
    assert "4 with rows from 2024-01-01 on; the newest closed one is 2024-01-22" in result.stdout
    assert "1 row, missing_user: user None, event 'event 1', time '2024-01-02'" in result.stdout
    assert "1 row, unreadable_time: user 'user 1', event 'event 1', time 'soon'" in result.stdout
    assert "1 row, time_in_future: user 'user 1', event 'event 1', time '2038-01-19'" in result.stdout
    assert "1 of 6 user ids have blanks at an end, such as ' user 1'" in result.stdout
    assert "the user ids 'unknown' may stand for a missing value" in result.stdout
    assert not (tmp_path / "home" / "log.json").exists()


def test_export_writes_what_was_published_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = published(home_on_log(tmp_path))
    refused = tgn("export", home=home)
    assert (refused.exit_code, refused.stderr) == (
        1,
        "Error: there is nowhere to export to; set TGN_EXPORT_PARQUET or TGN_EXPORT_POSTGRES\n",
    )
    monkeypatch.setenv("TGN_EXPORT_PARQUET", "out")
    done = tgn("export", home=home)
    assert done.exit_code == 0, done.output
    assert f"3 rows  {tmp_path / 'out' / 'weekly_top5_predictions'}" in done.stdout
    assert (tmp_path / "out" / "weekly_top5_predictions" / f"week={WEEKS[3]}" / "data.parquet").exists()
    assert ("parquet_export", WEEKS[3]) in home.warehouse().lineage().made
    assert f"{WEEKS[3]} parquet_export" not in tgn("status", home=home).stdout  # the sensor leaves it alone
    monkeypatch.setenv("TGN_EXPORT_PARQUET", "elsewhere")
    assert f"{WEEKS[3]} parquet_export" in tgn("status", home=home).stdout
    monkeypatch.setenv("TGN_EXPORT_PARQUET", "out")
    assert "nothing was published in week 2023-12-25" in tgn("export", "--week", "2023-12-25", home=home).stderr


def test_a_report_is_written_where_it_says(tmp_path: Path) -> None:
    home = published(home_on_log(tmp_path))
    assert "there is nothing to report" in tgn("report", "--week", "2023-12-25", home=home).stderr
    done = tgn("report", home=home)
    assert (done.exit_code, done.stdout) == (0, f"{home.reports / f'{WEEKS[3]}.html'}\n"), done.output
    assert "1 user has a list" in (home.reports / f"{WEEKS[3]}.html").read_text()
    assert tgn("report", "--out", "here.html", home=home).stdout == "here.html\n"
    assert (tmp_path / "here.html").exists()
