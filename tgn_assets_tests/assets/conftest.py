"""Weeks of these tests have no pictures; those of the fixture `finished` have them."""

import pytest

from tgn_assets_tests.support.deployment import without_pictures


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
