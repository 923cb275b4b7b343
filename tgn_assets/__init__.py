"""Every user's top-5 events for the next week, refreshed weekly by Dagster; `Recommender` does it in a notebook."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tgn_assets.component import WeeklyTopK as WeeklyTopK
    from tgn_assets.recommender.recommender import Recommender as Recommender

PUBLIC = {"Recommender": "tgn_assets.recommender.recommender", "WeeklyTopK": "tgn_assets.component"}
"""What may be imported from here -> its module, which is loaded once it is asked for."""


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC} - {"Recommender"})  # Dagster loads all that is listed, and torch takes seconds
