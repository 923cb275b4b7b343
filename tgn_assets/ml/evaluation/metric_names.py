"""The names that `eval_metrics` uses for models besides ours and the baselines, and the names that it used before."""

from collections.abc import Mapping

import pandas as pd

CEILING = "ceiling"
"""A ranker that knows the truth but, like everybody, only the events seen before the week."""
CANDIDATES = "candidates"
"""A perfect ranking of the candidates that the ranker had."""
WITHOUT_FALLBACK = "without_fallback"
"""The ranker's own lists for all users, as they would have been without the baseline fallback."""

DRAWN = "drawn:"
"""Before the name of a metric of ours: over the drawn users alone, as all other models are scored; without it, over all
active users. There are such rows where not all active users were drawn."""

FORMER_MODELS: Mapping[str, str] = {WITHOUT_FALLBACK: "ungated"}
FORMER_METRICS: Mapping[str, str] = {
    "candidate_recall:repeat": "candidate_recall:own",
    "candidate_recall:co_occurrence": "candidate_recall:cooccurring",
    "candidate_recall:next_week": "candidate_recall:follows",
}
"""New name -> former name. Until dashboards have moved, `eval_metrics` has the rows under both names."""

UNPUBLISHED = (CANDIDATES, CEILING, WITHOUT_FALLBACK, *FORMER_MODELS.values())
"""Models whose lists nobody was shown: neither ours nor a baseline."""


def on_drawn_users(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `eval_metrics` (model, segment, metric, ...) that can be compared: ours over the drawn users, too."""
    drawn = rows.metric.str.startswith(DRAWN)
    compared = rows[drawn].assign(metric=rows.metric[drawn].str.removeprefix(DRAWN))
    keys = ["week", "model", "segment", "metric"] if "week" in rows else ["model", "segment", "metric"]
    replaced = pd.MultiIndex.from_frame(rows[keys]).isin(pd.MultiIndex.from_frame(compared[keys]))
    return pd.concat([rows[~drawn & ~replaced], compared], ignore_index=True) if drawn.any() else rows


def on_all_users(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `eval_metrics` without ours over the drawn users alone."""
    return rows[~rows.metric.str.startswith(DRAWN)]


def with_former_names(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `eval_metrics` under their former names, then those that have been renamed under their new name."""
    former = rows.assign(
        model=[FORMER_MODELS.get(name, name) for name in rows.model],
        metric=[FORMER_METRICS.get(name, name) for name in rows.metric],
    )
    renamed = (former.model != rows.model) | (former.metric != rows.metric)
    return pd.concat([former, rows[renamed]], ignore_index=True)


def without_former_names(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of `eval_metrics` (model, metric, ...), each number once and under the name that it has today."""
    return rows[~(rows.model.isin(FORMER_MODELS.values()) | rows.metric.isin(FORMER_METRICS.values()))]
