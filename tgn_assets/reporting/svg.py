"""Renders Vega-Altair charts without a browser or a network, for the weekly report and for the UI."""

import mmap
from contextlib import AbstractContextManager
from functools import cache
from typing import Any

from altair.utils.schemapi import debug_mode

ADDRESS_SPACE = 64 << 30
"""Bytes of address space, not of memory, that the renderer's JavaScript engine may reserve when it is started."""


class ChartError(RuntimeError):
    """A picture cannot be drawn; the message says why."""


def unvalidated() -> AbstractContextManager[None]:
    """A context in which charts are made: validating each part against Vega-Lite's schema takes longer than drawing."""
    return debug_mode(False)


def svg(chart: Any, config: dict[str, Any]) -> str:
    """An Altair `chart` as text, in the style of the Vega-Lite `config`; ChartError if it cannot be drawn."""
    _require_address_space()
    try:
        from vl_convert import vegalite_to_svg

        with unvalidated():
            return vegalite_to_svg({**chart.to_dict(validate=False), "config": config})
    except BaseException as error:
        # What the renderer, which is written in Rust, calls a panic is not an Exception.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise ChartError(" ".join(f"{type(error).__name__}: {error}".split())[:200]) from error
        raise


@cache
def _require_address_space() -> None:
    """ChartError unless the engine can reserve what it needs: it would end this process, without an exception."""
    try:
        mmap.mmap(-1, ADDRESS_SPACE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=0).close()
    except OSError as error:
        raise ChartError("the address space is limited (ulimit -v)") from error
