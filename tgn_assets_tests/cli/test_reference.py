"""docs/reference.md says what the code does."""

from pathlib import Path

import pytest

from tgn_assets.cli.reference import reference
from tgn_assets.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"


def test_the_page_is_what_the_code_says_today() -> None:
    assert PAGE.read_text() == reference(), "docs/reference.md is out of date: run `make reference`"


def test_every_setting_and_every_verb_is_in_it() -> None:
    page = reference()
    for name in Settings.model_fields:
        assert f"| `TGN_{name.upper()}` |" in page
    for verb in (
        "generate",
        "refresh",
        "backtest",
        "top5",
        "status",
        "dev",
        "models list",
        "models compare",
        "models pin",
        "models rollback",
    ):
        assert f"### tgn {verb}\n" in page
        assert f"Usage: tgn {verb} [OPTIONS]" in page


def test_a_setting_that_appears_makes_the_page_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    before = reference()
    monkeypatch.setitem(Settings.model_fields, "colour", Settings.model_fields["device"])
    assert reference() != before
    assert "`TGN_COLOUR`" in reference()
