import base64
import subprocess
import sys

import dagster as dg
import pandas as pd
import pytest

from tgn_assets.reporting.asset_plots import activity_plot, catalogue_plot, curve_plot, quality_plot
from tgn_assets.reporting.renderer import RENDERER, ChartError
from tgn_assets.reporting.weekly_page.charts import loss_chart


def drawn(picture: dg.MetadataValue) -> str:
    """The SVG inside a picture of Markdown; it is small, for Dagster keeps it in its event log."""
    before, _, encoded = str(picture.value).partition("](data:image/svg+xml;base64,")
    assert before.startswith("![") and len(encoded) < 60_000
    svg = base64.b64decode(encoded.removesuffix(")")).decode()
    assert svg.startswith("<svg ") and svg.rstrip().endswith("</svg>")
    return svg


def test_a_training_curve_may_have_gaps() -> None:
    curve = [{"loss": 3.0 - step / 100, "validation_loss": None if step % 10 == 9 else 3.0} for step in range(200)]
    (picture,) = curve_plot(curve, ["loss", "validation_loss"]).values()
    assert ">validation loss<" in drawn(picture) and ">epoch<" in drawn(picture)
    assert curve_plot([], ["loss"]) == {}


def test_plots_by_week_are_small_and_need_a_week() -> None:
    weeks = pd.date_range("2024-01-01", periods=26, freq="7D")
    size = pd.DataFrame({"week": weeks, "interactions": range(26), "users": 5, "events": 3})
    models = [
        pd.DataFrame({"week": weeks, "model": f"model {number}", "value": 0.1, "ci_low": 0.05, "ci_high": 0.2})
        for number in range(8)
    ]
    for plot, frame, said in ((activity_plot, size, "interactions"), (quality_plot, pd.concat(models), "model 7")):
        (picture,) = plot(frame).values()
        assert f">{said}<" in drawn(picture) and ">06-24<" in drawn(picture)
        assert plot(frame.head(0)) == {}


def test_the_catalogue_plot_takes_any_event_id() -> None:
    most_recommended = pd.DataFrame({"event_id": ["$x_{1", "line\nbreak", "x" * 99, "plain"], "lists": [4, 3, 2, 1]})
    weeks = pd.DataFrame({"week": pd.date_range("2024-01-01", periods=4, freq="7D"), "recommended": 5, "known": 10})
    (picture,) = catalogue_plot(most_recommended, weeks).values()
    for name in ("$x_{1", r"line\nbreak", "xxxxxxxx...xxxxxxx", "plain", "share of known events on some list"):
        assert f">{name}<" in drawn(picture)
    assert catalogue_plot(most_recommended.head(0), weeks) == {}


def test_a_picture_that_cannot_be_drawn_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: str) -> str:
        raise ChartError("no JavaScript")

    monkeypatch.setattr(RENDERER, "svg", broken)
    curve = [{"loss": 1.25}, {"loss": 0.5}]
    assert curve_plot(curve, ["loss"])["curve"].value == "left out: no JavaScript"
    picture = loss_chart([("our lists", 0.0, 1.0, "left")], "label", "NDCG")
    assert picture.drawings == {"note": "<p>The picture is left out: no JavaScript.</p>"}


def test_a_limit_of_the_address_space_ends_no_process() -> None:
    code = """
import resource
from tgn_assets.reporting.asset_plots import curve_plot
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
print(curve_plot([{"loss": 1.0}, {"loss": 0.5}], ["loss"])["curve"].value)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout) == (
        0,
        "left out: its process ended with -5; is the address space limited (ulimit -v)?\n",
    ), ended.stderr
