"""Weeks of these tests have no pictures, which take a tenth of their time; those of `finished` have them."""

import pytest


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("asset_plots", "weekly_page.charts"):
        monkeypatch.setattr(f"tgn_assets.reporting.{module}.svg", lambda chart, config: "<svg></svg>")
