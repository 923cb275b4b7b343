"""Commands that run weeks: `tgn refresh` and `tgn backtest`."""

import re
import signal
from contextlib import ExitStack, nullcontext
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from tgn_assets import run_launcher
from tgn_assets.cli import runner as runner_module
from tgn_assets.cli.console import Progress
from tgn_assets.cli.runner import RunFailed, open_runner
from tgn_assets.definitions import build_definitions
from tgn_assets.state.home import Home
from tgn_assets.state.run_lock import hold
from tgn_assets_tests.cli.commands import published, start_tgn, tgn
from tgn_assets_tests.support.deployment import quick_training, without_pictures
from tgn_assets_tests.support.event_logs import ROWS, WEEKS, home_on_log

SUCCESS = dg.DagsterRunStatus.SUCCESS

pytestmark = pytest.mark.usefixtures("no_settings")


def test_if_needed_runs_nothing_where_nothing_is_pending(tmp_path: Path) -> None:
    result = tgn("refresh", "--if-needed", home=published(home_on_log(tmp_path)))
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "ran        nothing: nothing was pending",
        "skipped    2024-01-01..2024-01-15: complete already",
        "skipped    2024-01-22: complete already; --if-needed leaves the newest week alone, too",
        "skipped    2024-01-29 and later: not closed yet",
        "published  1 user has a list for the week of 2024-01-29, made by tgn_assets",
        "           no lists had been made for week 2024-01-22, so there is no score yet",
    ]


@pytest.mark.parametrize("asked", [[], ["--if-needed"]])
def test_a_log_that_ends_early_runs_no_week_and_is_an_error(tmp_path: Path, asked: list[str]) -> None:
    home = published(home_on_log(tmp_path))
    home_on_log(tmp_path, ROWS[:8])
    result = tgn("refresh", *asked, home=home)
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"the newest closed week was {WEEKS[3]} and is {WEEKS[1]} now" in result.stderr
    status = tgn("status", home=home).stdout
    assert f"was {WEEKS[3]} and is {WEEKS[1]} now" in status and "nothing before a new week has closed" in status
    home_on_log(tmp_path, [row.replace("2024", "2023") for row in ROWS])
    assert f"was {WEEKS[3]} and there is none now" in tgn("status", home=home).stdout


def test_a_week_that_the_log_has_not_come_to_is_refused(tmp_path: Path) -> None:
    result = tgn("refresh", "--week", "2024-01-29", home=home_on_log(tmp_path))
    assert result.exit_code == 1
    assert f"the log has not come to the week 2024-01-29 yet: its newest row is of the week {WEEKS[3]}" in result.stderr


def test_a_refresh_that_waited_leaves_what_the_other_run_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = home_on_log(tmp_path)
    with ExitStack() as other:
        other.enter_context(hold(home.run_lock, "run abc of process 1", print))

        def end_of_the_other(_: Progress, text: str) -> None:
            if "waiting for run abc" in text:
                published(home)
                other.close()

        monkeypatch.setattr(Progress, "say", end_of_the_other)
        result = tgn("refresh", "--if-needed", home=home)
    assert (result.exit_code, result.stdout.splitlines()[:2]) == (
        0,
        ["ran        nothing: nothing was pending", "skipped    2024-01-01..2024-01-15: complete already"],
    )


def test_a_run_that_fails_names_the_step_the_cause_and_the_run(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    assert home.start_week() == WEEKS[0]
    (tmp_path / "log.csv").write_text("ip_address,timestamp\n")
    result = tgn("refresh", "--week", WEEKS[0], home=home)
    assert result.exit_code == 1
    cause, where = result.stderr.splitlines()[-2:]  # what cron mails, by `tail -n 2` of docs/deployment.md
    assert re.search(r"Error: raw_interactions: .*TGN_EVENT_COLUMN", cause)
    assert re.search(r"`tgn dev`.* shows it as run [0-9a-f-]{36}", where)
    assert "Traceback" not in result.stderr
    assert f"failed     {WEEKS[0]}" in tgn("status", home=home_on_log(tmp_path)).stdout


def test_warnings_of_a_run_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = home_on_log(tmp_path, [*ROWS, ",event,2024-01-03 12:00:00"])
    with open_runner(home, Progress()) as runner:
        runner.ingest_before(WEEKS[1])
    assert "raw_interactions: " in (said := capsys.readouterr().err)
    assert "rejected rows: missing_user 1 (see the table rejected_interactions)" in said


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


def test_a_run_waits_for_another_until_ctrl_c(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    with hold(home.run_lock, "run abc of process 1", print):
        waiting = start_tgn(home, "refresh")
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
        assert instance.get_runs() == []


def test_a_run_killed_before_it_started_is_told_and_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = home_on_log(tmp_path)
    with home.instance() as instance:
        job = build_definitions(home.settings).resolve_job_def("weekly_refresh")
        instance.create_run_for_job(job, tags={"dagster/partition": WEEKS[3]})
    assert f"{WEEKS[3]} is not_started: it is about to start, or was killed" in tgn("status", home=home).stdout
    with home.instance() as instance:
        again = instance.create_run_for_job(job, tags={"dagster/partition": WEEKS[3]}, status=SUCCESS)
        assert "not_started" not in tgn("status", home=home).stdout
        instance.delete_run(again.run_id)
    monkeypatch.setattr(run_launcher, "START_SECONDS", -60)
    status = tgn("status", home=home).stdout
    assert f"failed     {WEEKS[3]}" in status and "was killed before it started" in status
    assert f"`tgn refresh --week {WEEKS[3]}` runs it again" in status


def test_a_backtest_runs_weeks_in_order_and_prints_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    quick_training(monkeypatch)
    home = home_on_log(tmp_path)
    with dg.DagsterInstance.ephemeral() as instance:
        monkeypatch.setattr(Home, "instance", lambda home: nullcontext(instance))
        result = tgn("backtest", "--weeks", "1", "--show-lists", home=home)
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
    assert user and tgn("top5", user[1], home=home).exit_code == 0
    assert re.search(r"NDCG@5.*HitRate@5.*Recall@5.*Precision@5.*MAP@5.*MRR", output)
    assert weeks == ["2024-01-22", "2024-01-15", None]
