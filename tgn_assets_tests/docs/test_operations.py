"""The commands of docs/operations.md, run in their order on a log of four users."""

import re
import subprocess
from contextlib import nullcontext
from pathlib import Path

import dagster as dg
import pytest
from click.testing import CliRunner

from tgn_assets.cli.main import cli
from tgn_assets.state.home import Home
from tgn_assets.state.warehouse import Warehouse
from tgn_assets_tests.support.deployment import quick_training, without_pictures
from tgn_assets_tests.support.event_logs import ROWS

pytestmark = pytest.mark.e2e

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
TGN = re.compile(r"^((?:TGN_\w+=\S+ )*)tgn (.*?)(?:\s+# fails: (.*))?$")


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[str, str]]]:
    """The folder, and each `tgn` command with what it printed; it failed where the page says so, and only there."""
    folder = tmp_path_factory.mktemp("operations")
    (folder / "interactions.csv").write_text("\n".join(["ip_address,event_id,timestamp", *ROWS]) + "\n")
    settings, printed = dict[str, str](), list[tuple[str, str]]()
    # Dagster's history is kept in memory: on disk it would take as long as all else.
    with dg.DagsterInstance.ephemeral() as instance, pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        quick_training(patch)
        patch.setattr(Home, "instance", lambda home: nullcontext(instance))
        patch.chdir(folder)
        for line in COMMANDS:
            if line.startswith("export "):
                settings |= dict(pair.split("=", 1) for pair in line.removeprefix("export ").split())
            elif found := TGN.match(line):
                own, verb, failure = found.groups()
                environment = settings | dict(pair.split("=", 1) for pair in own.split())
                result = CliRunner(env=environment).invoke(cli, verb)
                assert (result.exit_code != 0) == bool(failure), f"{line}\n{result.output}"
                assert not failure or failure in " ".join(result.stderr.split()), result.stderr
                printed.append((line, result.output))
            else:
                subprocess.run(["bash", "-euc", line], check=True)
    return folder, printed


def said(outputs: tuple[Path, list[tuple[str, str]]], verb: str) -> list[str]:
    return [output for line, output in outputs[1] if verb in line]


def test_status_says_at_each_step_what_the_page_says(outputs: tuple[Path, list[tuple[str, str]]]) -> None:
    monday, late, failed, pinned, renamed = said(outputs, "tgn status")
    assert "nothing: every closed week is complete" in monday
    assert "2024-01-15 has changed in the source since ingested" in " ".join(late.split())
    assert "recalled.txt is no file" in failed
    assert "pinned     lists come from the model of 2024-01-15" in pinned
    assert "are ingested" in renamed


def test_in_the_end_the_forgotten_user_has_no_list(
    outputs: tuple[Path, list[tuple[str, str]]],
) -> None:
    folder, _ = outputs
    (rolled_back,) = said(outputs, "tgn models rollback")
    assert "the lists of 2024-01-22 now come from the model of 2024-01-15" in rolled_back
    with Warehouse(folder / ".tgn" / "warehouse.duckdb").reader() as con:
        rows = con.execute("SELECT strftime(model_week, '%Y-%m-%d') FROM published_weeks ORDER BY week").fetchall()
        users = con.execute("SELECT count(DISTINCT user_id) FROM current_top5").fetchall()
    assert [row[0] for row in rows] == ["2024-01-15", "2024-01-22"]
    assert users == [(4,)]
    assert "left       nothing" in said(outputs, 'tgn forget --verify "user 9"')[0]
