"""The command `tgn` on a home, for tests."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
from click.testing import CliRunner, Result

from tgn_assets.cli.main import cli
from tgn_assets.state.home import Home
from tgn_assets_tests.support.event_logs import WEEKS, publish

ROOT = Path(__file__).parents[2]


LISTS = ["event 0", "event 1", "event 2"]
NO_REASON = {"reason": None, "reason_kind": None}


def tgn(*arguments: str, home: Home | None = None) -> Result:
    environment = {"TGN_HOME": str(home.root), "TGN_SOURCE": home.settings.source} if home else {}
    return CliRunner(env=environment).invoke(cli, arguments)


def start_tgn(home: Home, *arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"TGN_HOME": str(home.root), "TGN_SOURCE": home.settings.source, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "tgn_assets.cli.main", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def published(home: Home) -> Home:
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
