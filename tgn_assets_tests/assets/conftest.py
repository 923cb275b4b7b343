"""Weeks of these tests have no pictures, which take a tenth of their time; those of `finished` have them."""

import pytest


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vl_convert.vegalite_to_svg", lambda chart: "<svg></svg>")
