"""The verbs, on a log of four weeks; one backtest is real, the other homes are made without training."""

import fcntl
import json
import os
import pty
import re
import shlex
import signal
import struct
import subprocess
import sys
import termios
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import dagster as dg
import duckdb
import pandas as pd
import pytest
from click.testing import CliRunner, Result

from tgn_assets import run_launcher
from tgn_assets.cli import runner as runner_module
from tgn_assets.cli.console import Progress, fitted
from tgn_assets.cli.main import cli
from tgn_assets.cli.runner import RunFailed, open_runner
from tgn_assets.definitions import build_definitions
from tgn_assets.ml.data.policy import Policy
from tgn_assets.ml.sources import reader
from tgn_assets.ml.sources.synthetic import generate_week
from tgn_assets.state.home import Home
from tgn_assets.state.resources import policy_files
from tgn_assets.state.run_lock import hold
from tgn_assets_tests.support.deployment import quick_training, without_pictures
from tgn_assets_tests.support.event_logs import ROWS, WEEKS, home_on_log, ingest, publish

ROOT = Path(__file__).parents[2]
LISTS = ["event 0", "event 1", "event 2"]


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An environment without settings, in an empty folder without `.env`."""
    for name in [name for name in os.environ if name.startswith("TGN_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def _tgn(*arguments: str, home: Home | None = None) -> Result:
    environment = {"TGN_HOME": str(home.root), "TGN_SOURCE": home.settings.source} if home else {}
    return CliRunner(env=environment).invoke(cli, arguments)


def _command(home: Home, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"TGN_HOME": str(home.root), "TGN_SOURCE": home.settings.source, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tgn_assets.cli.main", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


NO_REASON = {"reason": None, "reason_kind": None}


def _published(home: Home) -> Home:
    """All of `WEEKS` published, the last one with lists."""
    publish(home, *WEEKS)
    rows = [
        (WEEKS[3], "2024-01-29", "user 1", i + 1, event, 1 / (i + 1), "tgn_assets") for i, event in enumerate(LISTS)
    ]
    lists = pd.DataFrame(rows, columns=["week", "target_week", "user_id", "rank", "event_id", "score", "source"])
    new_users = lists.drop(columns="user_id").assign(source="popular", event_id=LISTS[::-1])
    home.warehouse().replace_week_tables(
        WEEKS[3], {"weekly_top5_predictions": lists, "new_user_top5_predictions": new_users}
    )
    home.warehouse().record_made("weekly_report", {WEEKS[3]: "a page"})
    return home


# refresh


def test_if_needed_runs_nothing_where_nothing_is_pending(tmp_path: Path) -> None:
    result = _tgn("refresh", "--if-needed", home=_published(home_on_log(tmp_path)))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "ran        nothing: nothing was pending",
        "skipped    2024-01-01..2024-01-15: complete already",
        "skipped    2024-01-22: complete already; --if-needed leaves the newest week alone, too",
        "skipped    2024-01-29 and later: not closed yet",
        "published  1 user has a list for the week of 2024-01-29, made by tgn_assets",
        "           no lists had been made for week 2024-01-22, so there is no score yet",
    ]


# generate


def test_the_generated_log_has_the_default_column_names() -> None:
    result = _tgn("generate", "--weeks", "2", "--start-week", "2024-01-01")
    assert result.exit_code == 0
    header, *rows = result.stdout.splitlines()
    first, second = generate_week("2024-01-01"), generate_week("2024-01-08")
    assert header == "ip_address,event_id,timestamp"
    assert len(rows) == len(first) + len(second)
    assert rows[0] == f"{first.user_id[0]},{first.event_id[0]},{first.ts[0]}"


def test_another_seed_is_another_log_and_the_same_seed_the_same() -> None:
    one, again, other = (
        _tgn("generate", "--weeks", "1", "--start-week", "2024-01-01", "--seed", seed).stdout for seed in "001"
    )
    assert one == again != other


def test_a_reader_that_stops_reading_is_no_error(tmp_path: Path) -> None:
    writer = _command(Home(home_on_log(tmp_path).settings), "generate", "--weeks", "9")
    assert writer.stdout and writer.stderr
    assert writer.stdout.readline() == "ip_address,event_id,timestamp\n"
    writer.stdout.close()
    assert (writer.stderr.read(), writer.wait()) == ("", 0)


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


# usage


@pytest.mark.parametrize(
    "command", [(), ("generate",), ("refresh",), ("backtest",), ("top5",), ("status",), ("dev",), ("models",)]
)
def test_every_command_has_help(command: tuple[str, ...]) -> None:
    result = _tgn(*command, "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.output


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
    result = _tgn(*arguments, home=home_on_log(tmp_path))
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.split())


# errors


def test_a_missing_source_is_one_line_that_names_the_setting(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    (tmp_path / "log.csv").unlink()
    for command in ("refresh", "status"):
        result = _tgn(command, home=home)
        assert result.exit_code == 1
        assert re.fullmatch(r"(reading the source.*\n)*Error: TGN_SOURCE=.*log.csv does not exist.*\n", result.stderr)


def test_the_traceback_is_shown_on_request(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    (tmp_path / "log.csv").unlink()
    assert "Traceback" in _tgn("refresh", "--verbose", home=home).stderr


def test_a_misspelt_setting_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TGN_SOURC", "log.csv")
    result = _tgn("status")
    assert (result.exit_code, result.stderr) == (1, "Error: TGN_SOURC is not a setting; did you mean TGN_SOURCE?\n")


def test_a_log_without_a_closed_week_says_what_it_lacks(tmp_path: Path) -> None:
    result = _tgn("refresh", home=home_on_log(tmp_path, ["user,event,2024-01-03 12:00:00"]))
    assert result.exit_code == 1
    assert "no week has closed yet" in result.stderr


def test_a_run_that_fails_names_the_step_the_cause_and_the_run(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    assert home.start_week() == WEEKS[0]
    (tmp_path / "log.csv").write_text("ip_address,timestamp\n")
    result = _tgn("refresh", "--week", WEEKS[0], home=home)
    assert result.exit_code == 1
    assert re.search(r"Error: raw_interactions: .*TGN_EVENT_COLUMN.*\n.*shows it as run [0-9a-f-]{36}", result.stderr)
    assert "Traceback" not in result.stderr
    assert f"failed     {WEEKS[0]}" in _tgn("status", home=home_on_log(tmp_path)).stdout


@pytest.mark.parametrize(
    ("published", "says"),
    [(True, f"interrupted after the lists of {WEEKS[3]} were published"), (False, f"the lists of {WEEKS[3]} are as")],
)
def test_an_interrupted_run_says_what_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: bool, says: str
) -> None:
    home = home_on_log(tmp_path)
    home.warehouse().record_made("weekly_top5_predictions", {WEEKS[3]: "earlier lists"})

    def interrupted(*_: object, **__: object) -> object:
        if published:
            home.warehouse().record_made("weekly_top5_predictions", {WEEKS[3]: "lists"})
        return SimpleNamespace(success=False, all_events=[])

    monkeypatch.setattr(dg.JobDefinition, "execute_in_process", interrupted)
    monkeypatch.setattr(runner_module, "failure", lambda _, run_id: RunFailed("interrupted", run_id, interrupted=True))
    with open_runner(home, Progress()) as runner, pytest.raises(RunFailed, match=says):
        runner.refresh([WEEKS[3]])


@pytest.mark.parametrize("error", [duckdb.InterruptException("INTERRUPT Error"), RuntimeError("Query interrupted")])
def test_ctrl_c_within_a_query_is_no_fault_of_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setattr(reader, "expected_rows", Mock(side_effect=error))
    home = home_on_log(tmp_path)
    result = _tgn("check", home=home)
    assert (result.exit_code, result.stderr) == (130, "interrupted; nothing was left half done\n")


def test_a_run_waits_for_another_until_ctrl_c(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    with hold(home.run_lock, "run abc of process 1", print):
        waiting = _command(home, "refresh")
        assert waiting.stderr
        said = next(line for line in waiting.stderr if "waiting" in line)
        waiting.send_signal(signal.SIGINT)
        _, errors = waiting.communicate(timeout=60)
    assert "waiting for run abc of process 1, which holds" in said
    assert (waiting.returncode, errors.splitlines()[-1]) == (
        130,
        "interrupted; nothing was published: `tgn refresh` does what is left, `tgn status` says what that is",
    )
    with home.instance() as instance:
        assert [run.status for run in instance.get_runs()] == [dg.DagsterRunStatus.FAILURE]


# top5 and status


def test_the_list_of_a_user_is_printed_in_the_order_of_its_ranks(tmp_path: Path) -> None:
    result = _tgn("top5", "user 1", home=_published(home_on_log(tmp_path)))
    assert (result.exit_code, result.stderr) == (0, "")
    assert "user 1, week of 2024-01-29" in result.stdout
    assert re.findall(r"(\d)\s+(event \d)\s+([\d.]+)\s+tgn_assets", result.stdout) == [
        ("1", "event 0", "1.0000"),
        ("2", "event 1", "0.5000"),
        ("3", "event 2", "0.3333"),
    ]


def test_reasons_of_a_list_are_printed_where_it_has_some(tmp_path: Path) -> None:
    home = _published(home_on_log(tmp_path))
    with home.warehouse().writer() as con:
        con.execute(
            "UPDATE weekly_top5_predictions SET reason = 'so \x1b it is', reason_kind = 'repeat' WHERE rank = 1"
        )
    result = _tgn("top5", "user 1", "--week", WEEKS[3], home=home)
    assert result.stdout.count("so \\x1b it is") == 1
    found = json.loads(_tgn("top5", "user 1", "--week", WEEKS[3], "--json", home=home).stdout)
    assert [row["reason_kind"] for row in found["list"]] == ["repeat", None, None]


def test_a_user_without_interactions_gets_the_list_for_new_users(tmp_path: Path) -> None:
    result = _tgn("top5", "no\x1b[31mbody", home=_published(home_on_log(tmp_path)))
    assert result.exit_code == 0
    assert "no\\x1b[31mbody has no interaction up to the close of week 2024-01-22" in result.stderr
    assert "new users, week of 2024-01-29" in result.stdout
    assert re.findall(r"(event \d).*popular", result.stdout) == LISTS[::-1]


def test_a_user_left_out_gets_the_new_user_list_and_the_reason(tmp_path: Path) -> None:
    home = _published(home_on_log(tmp_path, [*ROWS, f"gone,event 1,{WEEKS[0]} 08:00:00"]))
    record = {"week": WEEKS[3], "target_week": "2024-01-29", "model_week": WEEKS[3], "k": 5, "users": 4}
    policy = Policy(max_silent_weeks=2).to_json()
    frame = pd.DataFrame([record | {"distinct_events": 3, "policy": policy}])
    home.warehouse().replace_week_tables(WEEKS[3], {"published_weeks": frame})
    home.warehouse().record_made("weekly_report", {WEEKS[3]: "a page"})  # writes the copy for readers
    result = _tgn("top5", "gone", home=home)
    assert "gone was left out at the close of week 2024-01-22, silent for 3 weeks" in result.stderr
    assert re.findall(r"(event \d).*popular", result.stdout) == LISTS[::-1]
    found = json.loads(_tgn("top5", "gone", "--json", home=home).stdout)
    assert (found["is_new_user"], found["silent_weeks"]) == (False, 3)
    new = json.loads(_tgn("top5", "nobody", "--json", home=home).stdout)
    assert (new["is_new_user"], new["silent_weeks"]) == (True, None)
    assert "left out   1 user was left out, silent for longer than 2 weeks" in _tgn("status", home=home).stdout


def test_without_lists_top5_says_what_to_run(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    assert "tgn refresh" in _tgn("top5", "user 1", home=home).stderr
    result = _tgn("top5", "user 1", "--week", WEEKS[0], home=_published(home))
    assert result.exit_code == 1
    assert "no lists were published for week 2024-01-01" in result.stderr


def test_status_says_what_is_there_and_what_to_do(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    fresh = _tgn("status", home=home)
    assert fresh.exit_code == 0
    assert "published  nothing yet" in fresh.stdout
    assert "2024-01-01..2024-01-15 are not ingested" in fresh.stdout
    assert "2024-01-22 has no predictions: the sensor does it, or `tgn refresh`" in fresh.stdout
    done = _tgn("status", home=_published(home)).stdout
    assert "2024-01-01 to 2024-01-22 are closed; 4 of 4 are ingested" in done
    assert "the newest at the close of 2024-01-22 for the week of 2024-01-29" in done
    assert "nothing: every closed week is complete" in done
    home.warehouse().record_made("trained_ranker", {WEEKS[3]: "another"})
    stale = _tgn("status", home=home).stdout
    assert f"{WEEKS[3]} temporal_embeddings, weekly_top5_predictions, weekly_report were made from something" in stale
    home_on_log(tmp_path, [*ROWS, f"late user,event 1,{WEEKS[1]} 08:00:00"])
    assert "2024-01-08 has changed in the source since ingested" in _tgn("status", home=home).stdout


def test_a_changed_policy_is_pending_for_the_newest_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, (lists, pages) = _published(home_on_log(tmp_path)), ("weekly_top5_predictions", "weekly_report")
    home.warehouse().record_made(lists, {WEEKS[3]: "lists"}, settings=policy_files(home).digest(WEEKS[3]))
    home.warehouse().record_made(pages, {WEEKS[3]: "a page"})
    assert "every closed week is complete" in _tgn("status", home=home).stdout
    monkeypatch.setenv("TGN_DENY_EVENTS", "event 1")
    assert f"{WEEKS[3]} {lists}, {pages} were made from something older" in _tgn("status", home=home).stdout
    monkeypatch.setenv("TGN_DENY_EVENTS", "event 1,Event 1")
    assert "look at    TGN_DENY_EVENTS names 1 of 2 ids that no event" in _tgn("status", home=home).stdout
    monkeypatch.setenv("TGN_DENY_EVENTS", "recalled.txt")  # a run is pending, which will say so, too
    status = _tgn("status", home=home).stdout
    assert f"{WEEKS[3]} {lists}, {pages}" in status
    assert "look at    TGN_DENY_EVENTS=recalled.txt is no file" in status


def test_a_week_whose_models_are_no_longer_kept_is_made_as_a_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = _published(home_on_log(tmp_path))
    home.warehouse().record_made("trained_gnn", {WEEKS[3]: "after a run that was killed"})
    assert f"{WEEKS[3]} trained_ranker, temporal_embeddings" in _tgn("status", home=home).stdout
    monkeypatch.setenv("TGN_KEEP_WEEKS", "26")
    assert f"{WEEKS[3]} its assets were made from something older" in _tgn("status", home=home).stdout


def test_lists_that_took_the_place_of_others_are_marked(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    publish(home, *WEEKS)
    assert json.loads(_tgn("status", "--json", home=home).stdout)["replaced"] == []
    home.warehouse().record_made("weekly_top5_predictions", {WEEKS[2]: "others"})
    home.warehouse().record_made("weekly_top5_predictions", {WEEKS[2]: "others"})
    (replaced,) = json.loads(_tgn("status", "--json", home=home).stdout)["replaced"]
    assert (replaced["week"], replaced["replaced"]) == (WEEKS[2], 1)
    assert replaced["first_published_at"] < replaced["published_at"]
    text = f"the lists of {WEEKS[2]} took the place of others at "
    assert f"replaced   {text}" in _tgn("status", home=home).stdout
    score = {"week": WEEKS[3], "model": "tgn_assets", "segment": "all", "metric": "ndcg", "value": 0.5, "users": 4}
    home.warehouse().replace_week_tables(
        WEEKS[3], {"eval_metrics": pd.DataFrame([score | {"ci_low": 0.4, "ci_high": 0.6}])}
    )
    assert _tgn("report", "--week", WEEKS[3], "--out", "page.html", home=home).exit_code == 0
    assert text in (tmp_path / "page.html").read_text()


def test_status_says_which_env_file_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = home_on_log(tmp_path)
    assert f"settings   of the environment; there is no .env in {tmp_path}" in _tgn("status", home=home).stdout
    (tmp_path / ".env").write_text("TGN_K=3\n")
    assert f"settings   of the environment and {tmp_path / '.env'}" in _tgn("check", home=home).stdout
    monkeypatch.setenv("TGN_COLOUR", "red")
    assert "look at    TGN_COLOUR is no setting: nothing reads it" in _tgn("check", home=home).stdout
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert f"{tmp_path / '.env'} is not read, since this is {tmp_path / 'below'}" in _tgn("check", home=home).stdout


def test_a_run_killed_before_it_started_is_told_and_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = home_on_log(tmp_path)
    with home.instance() as instance:
        job = build_definitions(home.settings).resolve_job_def("weekly_refresh")
        instance.create_run_for_job(job, tags={"dagster/partition": WEEKS[3]})
    assert f"{WEEKS[3]} is not_started: it is about to start, or was killed" in _tgn("status", home=home).stdout
    monkeypatch.setattr(run_launcher, "START_SECONDS", -60)
    status = _tgn("status", home=home).stdout
    assert f"failed     {WEEKS[3]}" in status and "was killed before it started" in status
    assert f"`tgn refresh --week {WEEKS[3]}` runs it again" in status


def test_errors_are_wrapped_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    message, begin = "TGN_SOURCE=log.csv " + "cannot be read " * 20, "Error: "
    assert fitted(message, begin, "") == message
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    lines = (begin + fitted(f"{message}\nThe option", begin, "")).split("\n")
    assert max(map(len, lines)) <= 80 and lines[-1] == "The option"
    assert " ".join(lines[:-1]).split() == ["Error:", *message.split()]


def test_status_on_a_terminal_fits_its_80_columns(tmp_path: Path) -> None:
    home = _published(home_on_log(tmp_path, [*ROWS, f",event 1,{WEEKS[0]} 08:00:00"]))
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
    home = _published(home_on_log(tmp_path, [*ROWS, f",event 1,{WEEKS[0]} 08:00:00"]))
    page = (ROOT / "docs" / "operations.md").read_text()
    documents = {}
    for command in ("status", "check"):
        result = _tgn(command, "--json", home=home)
        documents[command] = json.loads(result.stdout)
        (row,) = re.findall(rf"^\| `{command}` \| (.*) \|$", page, re.MULTILINE)
        assert list(documents[command]) == re.findall(r"`(\w+)`", row)
    assert documents["status"]["unused_rows"] == {
        "rejected": {"missing_user": 1},
        "before_first_week": 0,
        "after_last_week": 0,
        "rejected_outside": {},
    }
    assert documents["status"]["weeks"] == {"first": WEEKS[0], "newest": WEEKS[3], "closed": 4, "ingested": 4}
    assert documents["check"]["rows"] == {"usable": 16, "users": 4, "events": 3}
    shown = json.loads(re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[0])
    top5 = json.loads(_tgn("top5", "user 1", "--json", home=home).stdout)
    assert list(top5) == list(shown)
    assert top5["list"][2] == {"rank": 3, "event_id": "event 2", "score": 1 / 3, "source": "tgn_assets"} | NO_REASON
    assert list(top5["list"][2]) == list(shown["list"][0])


def test_a_command_that_fails_prints_no_json(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    (tmp_path / "log.csv").unlink()
    result = _tgn("status", "--json", home=home)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "does not exist" in result.stderr


def test_rows_after_the_last_week_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = [f"late,event 1,{WEEKS[3]} 08:00:00", f",event 1,{WEEKS[3]} 09:00:00"]
    home = home_on_log(tmp_path, [*ROWS, *late], end_week=WEEKS[2])
    monkeypatch.setenv("TGN_END_WEEK", WEEKS[2])
    ingest(home, WEEKS[2])
    status = _tgn("status", home=home).stdout
    assert "not used   5 rows of weeks after TGN_END_WEEK" in status
    assert "not used   1 row of earlier or later weeks that could not be used (missing_user 1)" in status
    assert "not used   5 rows of weeks after TGN_END_WEEK" in _tgn("check", home=home).stdout


# check


def test_check_says_what_was_understood_and_stores_nothing(tmp_path: Path) -> None:
    odd = ["unknown,event 1,2024-01-02", " user 1,event 1,2024-01-02", ",event 1,2024-01-02", "user 1,event 1,soon"]
    result = _tgn("check", home=home_on_log(tmp_path, [*ROWS, *odd, "user 1,event 1,2038-01-19"]))
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


# the whole


def test_a_backtest_runs_weeks_in_order_and_prints_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    quick_training(monkeypatch)
    home = home_on_log(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setattr(Home, "instance", lambda home: nullcontext(instance))
        result = _tgn("backtest", "--weeks", "1", "--show-lists", home=home)
        weeks = [run.tags.get("dagster/partition") for run in instance.get_runs()]
    output, errors = result.stdout, result.stderr
    assert result.exit_code == 0, errors
    done = re.findall(r"^(.*): done in", errors, re.MULTILINE)
    assert done == ["ingest 2024-01-01 to 2024-01-08", "week 2024-01-15 (1 of 2)", "week 2024-01-22 (2 of 2)"]
    assert "some lists for the week of 2024-01-29" in output
    assert "all active users: 4 in 1 target weeks, 2024-01-22" in output
    assert {"tgn_assets", "popular", "repeat", "item_knn", "ceiling"} <= set(
        re.findall(r"^\s+(\w+)", output, re.MULTILINE)
    )
    assert "done       2 weeks, 2024-01-15 to 2024-01-22" in output
    assert f"results    {home.warehouse_path}: current_top5" in output
    user = re.search(r"^next +tgn top5 '(user \d)'", output, re.MULTILINE)
    assert user and _tgn("top5", user[1], home=home).exit_code == 0
    assert re.search(r"NDCG@5.*HitRate@5.*Recall@5.*Precision@5.*MAP@5.*MRR", output)
    assert weeks == ["2024-01-22", "2024-01-15", None]


# export, report


def test_export_writes_what_was_published_and_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = _published(home_on_log(tmp_path))
    refused = _tgn("export", home=home)
    assert (refused.exit_code, refused.stderr) == (
        1,
        "Error: there is nowhere to export to; set TGN_EXPORT_PARQUET or TGN_EXPORT_POSTGRES\n",
    )
    monkeypatch.setenv("TGN_EXPORT_PARQUET", "out")
    done = _tgn("export", home=home)
    assert done.exit_code == 0, done.output
    assert f"3 rows  {tmp_path / 'out' / 'weekly_top5_predictions'}" in done.stdout
    assert (tmp_path / "out" / "weekly_top5_predictions" / f"week={WEEKS[3]}" / "data.parquet").exists()
    assert ("parquet_export", WEEKS[3]) in home.warehouse().lineage().made
    assert f"{WEEKS[3]} parquet_export" not in _tgn("status", home=home).stdout  # the sensor leaves it alone
    monkeypatch.setenv("TGN_EXPORT_PARQUET", "elsewhere")
    assert f"{WEEKS[3]} parquet_export" in _tgn("status", home=home).stdout
    monkeypatch.setenv("TGN_EXPORT_PARQUET", "out")
    assert "nothing was published in week 2023-12-25" in _tgn("export", "--week", "2023-12-25", home=home).stderr


def test_a_report_is_written_where_it_says(tmp_path: Path) -> None:
    home = _published(home_on_log(tmp_path))
    assert "there is nothing to report" in _tgn("report", "--week", "2023-12-25", home=home).stderr
    done = _tgn("report", home=home)
    assert (done.exit_code, done.stdout) == (0, f"{home.reports / f'{WEEKS[3]}.html'}\n"), done.output
    assert "1 user has a list" in (home.reports / f"{WEEKS[3]}.html").read_text()
    assert _tgn("report", "--out", "here.html", home=home).stdout == "here.html\n"
    assert (tmp_path / "here.html").exists()
