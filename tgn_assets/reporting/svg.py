"""Renders Vega-Altair charts without a browser or a network, for the weekly report and for the UI."""

from typing import Any

from altair.utils.schemapi import debug_mode
from vl_convert import vegalite_to_svg


def svg(chart: Any, config: dict[str, Any]) -> str:
    """An Altair `chart` as text, in the style of the Vega-Lite `config`."""
    # Validating each part of a chart against Vega-Lite's schema takes longer than drawing it.
    with debug_mode(False):
        return vegalite_to_svg({**chart.to_dict(), "config": config})
