"""Every user's top-5 events for the next week, refreshed weekly by Dagster; `Recommender` does it in a notebook."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tgn_assets.recommender.recommender import Recommender

__all__ = ["Recommender"]


def __getattr__(name: str) -> Any:
    """`Recommender`, imported when it is asked for: torch takes seconds."""
    if name == "Recommender":
        from tgn_assets.recommender.recommender import Recommender

        return Recommender
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
