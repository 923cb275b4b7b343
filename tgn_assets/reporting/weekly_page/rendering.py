"""Templates of the report's pages."""

from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from tgn_assets.ml.progress import duration
from tgn_assets.ml.safe_text import printable, shortened
from tgn_assets.reporting.verdict import signed
from tgn_assets.reporting.weekly_page.headline import NAMES


def render(template: str, *, made: datetime, **values: Any) -> str:
    """The HTML of `template`, a file of this folder, with `values`; `made` is when."""
    shown = f"{made.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    return _environment().get_template(template).render(made=shown, version=version("tgn_assets"), **values)


@cache
def _environment() -> Environment:
    """Of all templates, each of which it compiles once."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        "printable": lambda text: shortened(printable(text)),
        "score": lambda value: f"{value:.4f}",
        "signed": signed,
        "percent": lambda value: f"{value:.1%}",
        "duration": duration,
        "name": lambda model: NAMES.get(model, model),
        "breakable": lambda name: escape(name).replace("_", Markup("_<wbr>")),
    }
    return environment
