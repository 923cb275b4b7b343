"""The command `tgn top5`."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from tgn_assets.ml.data.policy import Policy
from tgn_assets.state.home import Home
from tgn_assets_tests.cli.commands import LISTS, published, tgn
from tgn_assets_tests.support.event_logs import ROWS, WEEKS, home_on_log

pytestmark = pytest.mark.usefixtures("no_settings")


def test_the_list_of_a_user_is_printed_in_the_order_of_its_ranks(tmp_path: Path) -> None:
    result = tgn("top5", "user 1", home=published(home_on_log(tmp_path)))
    assert (result.exit_code, result.stderr) == (0, "")
    assert "user 1, week of 2024-01-29" in result.stdout
    assert re.findall(r"(\d)\s+(event \d)\s+([\d.]+)\s+tgn_assets", result.stdout) == [
        ("1", "event 0", "1.0000"),
        ("2", "event 1", "0.5000"),
        ("3", "event 2", "0.3333"),
    ]


def test_reasons_of_a_list_are_printed_where_it_has_some(tmp_path: Path) -> None:
    home = published(home_on_log(tmp_path))
    with home.warehouse().writer() as con:
        con.execute(
            "UPDATE weekly_top5_predictions SET reason = 'so \x1b it is', reason_kind = 'repeat' WHERE rank = 1"
        )
    result = tgn("top5", "user 1", "--week", WEEKS[3], home=home)
    assert result.stdout.count("so \\x1b it is") == 1
    found = json.loads(tgn("top5", "user 1", "--week", WEEKS[3], "--json", home=home).stdout)
    assert [row["reason_kind"] for row in found["list"]] == ["repeat", None, None]


def test_a_user_without_interactions_gets_the_list_for_new_users(tmp_path: Path) -> None:
    result = tgn("top5", "no\x1b[31mbody", home=published(home_on_log(tmp_path)))
    assert result.exit_code == 0
    assert "no\\x1b[31mbody has no interaction up to the close of week 2024-01-22" in result.stderr
    assert "new users, week of 2024-01-29" in result.stdout
    assert re.findall(r"(event \d).*popular", result.stdout) == LISTS[::-1]


def record(home: Home, policy: Policy) -> None:
    row = {"week": WEEKS[3], "target_week": "2024-01-29", "model_week": WEEKS[3], "k": 5, "users": 4}
    frame = pd.DataFrame([row | {"distinct_events": 3, "policy": policy.to_json()}])
    home.warehouse().replace_week_tables(WEEKS[3], {"published_weeks": frame})


def test_a_user_left_out_gets_the_new_user_list_and_the_reason(tmp_path: Path) -> None:
    home = published(home_on_log(tmp_path, [*ROWS, f"gone,event 1,{WEEKS[0]} 08:00:00"]))
    record(home, Policy(max_silent_weeks=2))
    home.warehouse().record_made("weekly_report", {WEEKS[3]: "a page"})  # writes the copy for readers
    result = tgn("top5", "gone", home=home)
    assert "gone was left out at the close of week 2024-01-22, silent for 3 weeks" in result.stderr
    assert re.findall(r"(event \d).*popular", result.stdout) == LISTS[::-1]
    found = json.loads(tgn("top5", "gone", "--json", home=home).stdout)
    assert (found["is_new_user"], found["silent_weeks"]) == (False, 3)
    new = json.loads(tgn("top5", "nobody", "--json", home=home).stdout)
    assert (new["is_new_user"], new["silent_weeks"]) == (True, None)
    assert "left out   1 user was left out, silent for longer than 2 weeks" in tgn("status", home=home).stdout


def test_without_lists_top5_says_what_to_run(tmp_path: Path) -> None:
    home = home_on_log(tmp_path)
    assert "tgn refresh" in tgn("top5", "user 1", home=home).stderr
    result = tgn("top5", "user 1", "--week", WEEKS[0], home=published(home))
    assert result.exit_code == 1
    assert "no lists were published for week 2024-01-01" in result.stderr
    assert "run `tgn refresh --week 2024-01-01`" in result.stderr
    assert "USER is empty or blank" in tgn("top5", " ", home=home).stderr


def test_a_week_without_any_list_is_said_in_a_sentence(tmp_path: Path) -> None:
    home = published(home_on_log(tmp_path))
    record(home, Policy())
    with home.warehouse().writer() as con:
        con.execute("DELETE FROM weekly_top5_predictions; DELETE FROM new_user_top5_predictions")
    result = tgn("top5", "user 1", "--week", WEEKS[3], home=home)
    assert (result.exit_code, result.stdout) == (0, "")
    assert f"week {WEEKS[3]} was published with no list for user 1, and with none for new users" in result.stderr
    assert json.loads(tgn("top5", "user 1", "--week", WEEKS[3], "--json", home=home).stdout)["list"] == []
