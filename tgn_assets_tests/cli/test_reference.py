"""docs/reference.md says what the code does."""

from pathlib import Path

from tgn_assets.cli.main import cli
from tgn_assets.cli.models import models
from tgn_assets.cli.reference import reference
from tgn_assets.settings import Settings

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"


def test_the_page_is_what_the_code_says_today() -> None:
    assert PAGE.read_text() == reference(), "docs/reference.md is out of date: run `make reference`"


def test_every_setting_and_every_verb_is_in_it() -> None:
    page = reference()
    for name in Settings.model_fields:
        assert f"| `TGN_{name.upper()}` |" in page
    for verb in [*cli.commands, *(f"models {verb}" for verb in models.commands)]:
        assert f"### tgn {verb}\n" in page
        assert f"Usage: tgn {verb} [OPTIONS]" in page
