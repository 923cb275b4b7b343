"""A forgotten id is in no file any more, does not come back, and nothing is published or trained again for it."""

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from safetensors.torch import load_file

from tgn_assets.automation.backlog import Backlog
from tgn_assets.cli.doctor import findings
from tgn_assets.forget.artifacts import _of_nodes, index_kind
from tgn_assets.forget.erase import forget
from tgn_assets.ml.recommend.reason_check import check_reasons
from tgn_assets.ml.schema import EVENT as EVENTS
from tgn_assets.ml.schema import USER as USERS
from tgn_assets.ml.sources.spec import EMPTY_DIGEST
from tgn_assets.state.artifact_store import TYPES
from tgn_assets.state.home import Home
from tgn_assets_tests.forget.conftest import EVENT, LONG, NEXT, OTHERS, SHORT, WEEKS, Grep, left, settings_of, write_log
from tgn_assets_tests.support.deployment import Deployment

ROOT = Path(__file__).parents[2]


def query(home: Home, sql: str, *parameters: object) -> list[tuple]:
    with duckdb.connect(home.warehouse_path, read_only=True) as con:
        return con.execute(sql, parameters or None).fetchall()


def faults(home: Home) -> list[str]:
    return [str(finding) for finding in findings(home) if finding.to_do and "make room" not in str(finding)]


def test_everything_of_the_world_names_the_user_before(home: Home, grep: Grep) -> None:
    found = {trace.place for trace in left(home, USERS, LONG)}
    assert {path.rpartition(".")[2] for path in found} >= {"duckdb", "html", "db", "parquet"}
    assert grep("zq81")


@pytest.mark.parametrize("name", [LONG, SHORT])
def test_a_forgotten_user_is_nowhere(home: Home, grep: Grep, name: str) -> None:
    lists = query(home, "FROM weekly_top5_predictions WHERE user_id <> ? ORDER BY ALL", name)
    forget(home, USERS, [name], print)
    assert left(home, USERS, name) == []
    assert not grep("zq81") or name == SHORT
    assert query(home, "FROM weekly_top5_predictions ORDER BY ALL") == lists
    assert query(home, "SELECT count(*) FROM users WHERE user_id = ''") == [(1,)]
    assert Backlog(home).work_items() == []
    assert faults(home) == []


def test_weeks_of_which_no_row_is_left_are_not_pending(home: Home) -> None:
    forget(home, USERS, [LONG, SHORT, *OTHERS], print)
    assert query(home, "SELECT DISTINCT rows, digest FROM ingested_weeks") == [(0, EMPTY_DIGEST)]
    assert Backlog(home).work_items() == [] and query(home, "FROM current_top5") == []


def test_every_index_in_an_artifact_is_known_to_forget(home: Home) -> None:
    """An integer tensor is an index that `forget` finds by its name, with rows to set to zero, or one of these."""
    others = set[str]()
    for path in home.artifacts.glob("*/*/*.safetensors"):
        tensors = load_file(path) if path.parent.parent.name in TYPES else {}
        for name, tensor in tensors.items():
            if (kind := index_kind(name)) is not None:
                assert _of_nodes(tensors, kind, name), name
            elif not tensor.is_floating_point():
                others.add(name.rpartition("/")[2])
    assert others == {"edge_index", "edge_time", "label", "members", "segment"}


def test_a_forgotten_event_is_nowhere_and_ranks_have_no_gap(home: Home, grep: Grep) -> None:
    assert query(home, "SELECT count(*) FROM weekly_top5_predictions WHERE event_id = ?", EVENT) != [(0,)]
    forget(home, EVENTS, [EVENT], print)
    assert left(home, EVENTS, EVENT) == []
    assert not grep("zq82")
    gaps = "SELECT week, user_id FROM weekly_top5_predictions GROUP BY ALL HAVING max(rank) <> count(*)"
    assert query(home, gaps) == []
    assert Backlog(home).work_items() == [] and faults(home) == []


@pytest.mark.parametrize(("kind", "name"), [(USERS, LONG), (EVENTS, EVENT)])
def test_reasons_of_the_others_stay_true(home: Home, kind: str, name: str) -> None:
    forget(home, kind, [name], print)
    with home.warehouse().reader() as con:
        checks = [check_reasons(con, week) for week in WEEKS[1:]]
    assert sum(sum(check.checked.values()) for check in checks) > 0
    assert [check.message for check in checks if not check.untrue.empty] == []


def test_the_next_week_is_made_without_the_user(home: Home, folder: Path, grep: Grep) -> None:
    forget(home, USERS, [LONG, SHORT], print)
    write_log(
        folder / "log.csv",
        WEEKS,
        *(f"{user},event-{at % 4},2024-01-30 10:00:00" for at, user in enumerate([LONG, "17.0", SHORT, *OTHERS])),
        f"{LONG};event-1;2024-01-30",
        f"{OTHERS[1]},event-1,{LONG}",
        f"{OTHERS[1]},event-2,2024-02-04 11:00:00",
    )
    later = Home(settings_of(folder, end_week=NEXT))
    with later.instance() as instance:
        deployment = Deployment(later, instance)
        assert [item.weeks for item in Backlog(later).work_items()] == [NEXT]
        deployment.run(NEXT)
        (made,) = instance.fetch_materializations(dg.AssetKey("raw_interactions"), limit=1).records
        assert made.asset_materialization
        assert made.asset_materialization.metadata["forgotten"].value == 3 + len(WEEKS)  # one of each week has no time
    listed = {user for (user,) in query(later, "SELECT user_id FROM current_top5")}
    assert listed == set(OTHERS)
    assert query(later, "SELECT count(*) FROM raw_interactions WHERE user_id IN (?, ?)", LONG, SHORT) == [(0,)]
    assert left(later, USERS, LONG, SHORT) == [] and not grep("zq81")
    assert faults(later) == [] and Backlog(later).work_items() == []


def test_indices_are_not_given_again(home: Home, folder: Path) -> None:
    ((newest,),) = query(home, "SELECT user_id FROM users ORDER BY user_idx DESC LIMIT 1")
    ((before,),) = query(home, "SELECT max(user_idx) FROM users")
    forget(home, USERS, [newest], print)
    write_log(folder / "log.csv", WEEKS, "user-new,event-1,2024-01-23 10:00:00")
    with home.instance() as instance:
        Deployment(home, instance).run(WEEKS[-1], "raw_interactions")
    assert query(home, "SELECT user_idx FROM users WHERE user_id = 'user-new'") == [(before + 1,)]


STEPS = (
    "forget.tables.remove_ids",
    "forget.artifacts.zero_indices",
    "forget.tables.sync",
    "state.published_copy.write_copy",
    "forget.exported.clean_export",
    "forget.history.clean_history",
    "forget.erase._remove_leftovers",
)
"""Of `forget`, in their order."""


def test_settings_of_another_log_keep_nobody_from_being_forgotten(home: Home, folder: Path, grep: Grep) -> None:
    (folder / "other.csv").write_text("ip_address,event_id,timestamp\nann,tea,2024-01-09 12:00:00\n")
    told = list[str]()
    forget(Home(settings_of(folder, source=str(folder / "other.csv"))), USERS, [LONG], told.append)
    assert left(home, USERS, LONG) == [] and not grep("zq81")
    assert any("removed: `tgn report --week` writes one again" in text for text in told)
    assert all("report" in fault for fault in faults(home))


@pytest.mark.e2e
def test_a_forget_killed_at_each_step_is_finished_by_running_it_again(
    home: Home, monkeypatch: pytest.MonkeyPatch, grep: Grep
) -> None:
    class Killed(BaseException):
        """Like a signal that no handler survives: nothing after it is run."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    for step in STEPS:
        with monkeypatch.context() as patch:
            patch.setattr(f"tgn_assets.{step}", die)
            with pytest.raises(Killed):
                forget(home, USERS, [LONG], print)
        assert left(home, USERS, LONG) or step == STEPS[-1], step
        assert any("forget" in fault for fault in faults(home)), step
    forget(home, USERS, [LONG], print)
    assert left(home, USERS, LONG) == [] and not grep("zq81") and faults(home) == []
    assert Backlog(home).work_items() == []


@pytest.mark.e2e
def test_a_forget_killed_by_a_signal_is_finished(home: Home, folder: Path, grep: Grep) -> None:
    script = (
        "import os, signal, sys; from tgn_assets.forget import tables; "
        "tables.sync = lambda *_: os.kill(os.getpid(), signal.SIGKILL); "
        "from tgn_assets.forget.erase import forget; from tgn_assets.settings import read_settings; "
        "from tgn_assets.state.home import Home; forget(Home(read_settings()), sys.argv[1], [sys.argv[2]], print)"
    )
    given = {"TGN_HOME": str(home.root), "TGN_SOURCE": str(folder / "log.csv"), "TGN_END_WEEK": WEEKS[-1]}
    environment = os.environ | given | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run([sys.executable, "-c", script, USERS, LONG], env=environment, cwd=folder, check=False)
    assert process.returncode == -9
    forget(home, USERS, [LONG], print)
    assert left(home, USERS, LONG) == [] and not grep("zq81") and faults(home) == []
