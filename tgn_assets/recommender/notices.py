"""What a `Recommender` says while it works: a line of progress, and warnings in the words of a notebook."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import duckdb
from tqdm import tqdm

from tgn_assets.ml.monitoring.drift import drift, read_measures
from tgn_assets.ml.monitoring.week_warnings import FALLBACK_LIMIT
from tgn_assets.ml.progress import LogFn, no_log
from tgn_assets.ml.recommend.publish import WeekPublication
from tgn_assets.ml.schema import OURS
from tgn_assets.recommender.tables import in_notebook_words


@contextmanager
def shown_progress(progress: bool | Callable[[str], None]) -> Iterator[LogFn]:
    """What lines about progress are given to: the function `progress`, or a line on stderr if it is True."""
    if callable(progress):
        yield progress
    elif not progress:
        yield no_log
    else:
        with tqdm(bar_format="{desc}", file=sys.stderr, leave=False, dynamic_ncols=True) as line:
            yield line.set_description_str


@contextmanager
def warned() -> Iterator[LogFn]:
    """Warns, where the method that opens the context was called, of what it tells, once each and at its end."""
    told = dict[str, None]()
    try:
        yield told.setdefault
    finally:
        for text in told:
            warnings.warn(in_notebook_words(text), stacklevel=4)


def warn_about(con: duckdb.DuckDBPyConnection, week: str, made: WeekPublication, warn: LogFn) -> None:
    """Warns of what the checks of the pipeline warn of: a week unlike those before, and lists by baselines."""
    if drifted := [str(measure) for measure in drift(read_measures(con, week)) if measure.drifted]:
        warn(f"week {week} is unlike the weeks before: {'; '.join(drifted)}; is the log complete?")
    lists = made.lists_by_source
    if sum(lists.values()) and 1 - lists.get(OURS, 0) / sum(lists.values()) > FALLBACK_LIMIT:
        made_by = ", ".join(f"{source} {number:,}" for source, number in lists.items())
        warn(
            f"baselines made most lists ({made_by}): they did better than the ranker in the last closed weeks, or the "
            "log has fewer than the three weeks that the ranker is trained on"
        )
