"""Vega-Altair charts as SVG, for the weekly report and for the UI."""

import json
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import Any

from altair.utils.schemapi import debug_mode

from tgn_assets.reporting.renderer import RENDERER


def unvalidated() -> AbstractContextManager[None]:
    """A context in which charts are made: validating each part against Vega-Lite's schema takes longer than drawing."""
    return debug_mode(False)


def svg(chart: Any, config: dict[str, Any]) -> str:
    """An Altair `chart` as text, in the style of the Vega-Lite `config`; ChartError if it cannot be drawn."""
    with unvalidated():
        return _drawn(json.dumps({**chart.to_dict(validate=False), "config": config}))


@lru_cache(maxsize=8)
def _drawn(chart: str) -> str:  # the newest report and the list of reports have the same trend
    return RENDERER.svg(chart)
