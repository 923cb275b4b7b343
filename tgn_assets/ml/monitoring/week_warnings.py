"""What is worth a warning about a week: the log drifted, most lists are a baseline's, a baseline did better.

To add a warning, write a function like those below and enter it in `checks.monitoring.WARNINGS`. Its docstring is the
description that the UI shows.
"""

from __future__ import annotations

from typing import NamedTuple

import duckdb
import pandas as pd

from tgn_assets.ml.evaluation.metric_names import UNPUBLISHED
from tgn_assets.ml.evaluation.summary import lift_over_best
from tgn_assets.ml.monitoring.drift import MIN_WEEKS, drift, read_measures
from tgn_assets.ml.schema import OURS

FALLBACK_LIMIT = 0.5
"""Share of the users whose list a baseline may have made."""

LEVEL = 0.025
"""How often `not_below_baseline` may warn although no baseline is better."""
POOLED_WEEKS, HALF_LIFE = 8, 4.0
"""The weeks that it pools, and after how many of them a week counts half."""

GROUPS_SQL = """
    SELECT week, user_group, users, model, ndcg FROM eval_user_groups
    WHERE segment = 'all' AND week <= $week::DATE AND week > $week::DATE - 7 * $weeks
      AND NOT list_contains($unpublished, model)
"""
LISTS_SQL = "SELECT source, count(*) FROM weekly_top5_predictions WHERE week = ? AND rank = 1 GROUP BY ALL ORDER BY ALL"


class CheckOutcome(NamedTuple):
    """What a check found in a week: `message` says what, and what to do if the check did not pass."""

    passed: bool
    message: str
    values: dict[str, float]


def input_like_before(con: duckdb.DuckDBPyConnection, week: str) -> CheckOutcome:
    """Volume, share of new users, event turnover and shift of popularity are within four robust standard deviations of
    the twelve weeks before."""
    measured = drift(read_measures(con, week))
    drifted = [str(measure) for measure in measured if measure.drifted]
    message = f"Nothing to compare week {week} with: it takes {MIN_WEEKS} weeks before it."
    if drifted:
        message = (
            f"Week {week} is unlike the weeks before: {'; '.join(drifted)}. If its export is incomplete or holds "
            f"rows twice, mend the source and run weekly_refresh for {week} again (the sensor does, once the "
            "source changes). If the world has changed, there is nothing to do: the model is trained on it."
        )
    elif measured:
        message = "; ".join(map(str, measured))
    values = {measure.measure: measure.value for measure in measured}
    return CheckOutcome(not drifted, message, values | {f"z/{measure.measure}": measure.z for measure in measured})


def lists_are_ours(con: duckdb.DuckDBPyConnection, week: str) -> CheckOutcome:
    """At most half of the users get their list from a baseline instead of the ranker."""
    lists = dict(con.execute(LISTS_SQL, [week]).fetchall())
    share = 1 - lists.get(OURS, 0) / sum(lists.values()) if lists else 0.0
    made_by = ", ".join(f"{source} {number:,}" for source, number in lists.items()) or "none were made"
    message = f"Lists by source: {made_by}."
    if share > FALLBACK_LIMIT:
        message += (
            " In the last closed weeks the baseline did better for these users than the ranker, or the log has fewer "
            "than the three weeks that the ranker is trained on. If this lasts, see validation/ndcg_tgn_assets of "
            "trained_ranker over the weeks, and whether input_like_before found a change in the log."
        )
    return CheckOutcome(share <= FALLBACK_LIMIT, message, {"share_from_baselines": share})


def not_below_baseline(con: duckdb.DuckDBPyConnection, week: str) -> CheckOutcome:
    """The published lists were not clearly worse (NDCG, 95% confidence) than the best baseline, neither in the week nor
    in the eight weeks up to it."""
    lift = lift_over_best(con.execute("SELECT * FROM eval_metrics WHERE week = ?", [week]).df())
    if lift is None:
        return CheckOutcome(True, f"Nothing to score: no lists for week {week}, or nobody was active in it.", {})
    values = {"lift": lift.value, "lift_low": lift.ci_low, "lift_high": lift.ci_high}
    message = (
        f"NDCG minus that of the best baseline, {lift.baseline}: {lift.value:+.4f} "
        f"[{lift.ci_low:+.4f}, {lift.ci_high:+.4f}] over {lift.users:,} users."
    )
    gains = _gains_of_baselines(con, week)
    if gains.empty:
        return CheckOutcome(True, message, values)
    best, gain, p = _best_of(gains)
    p_of_week = _best_of(gains[gains.week == pd.Timestamp(week)]).p
    values |= {"pooled_lift": -gain, "p": p, "p_of_week": p_of_week}
    message += f" In {gains.week.nunique()} weeks together, the newest of which count most, minus {best}: {-gain:+.4f}."
    below = min(p, p_of_week) < LEVEL / 2  # of two tests, one is enough
    if below:
        message += (
            f" Were no baseline better, this would be improbable (p {min(p, p_of_week):.4f}, corrected for the choice "
            "of the best). See in `lost/...` of eval_metrics where the points went (fallback, ranking, recall, unknown "
            "events), whether input_like_before warned, and whether trained_ranker stopped improving; "
            "`tgn backtest --weeks 4` scores the last weeks again."
        )
    return CheckOutcome(not below, message, values)


class _Best(NamedTuple):
    """The baseline with the smallest p, by how much NDCG it beat us, and its p."""

    baseline: str
    gain: float
    p: float


def _gains_of_baselines(con: duckdb.DuckDBPyConnection, week: str) -> pd.DataFrame:
    """week, user_group, weight, then for each baseline by how much its sum of NDCG is larger than ours: weighted sums
    over the users of the group, of the `POOLED_WEEKS` weeks up to `week`."""
    asked = {"week": week, "weeks": POOLED_WEEKS, "unpublished": list(UNPUBLISHED)}
    rows = con.execute(GROUPS_SQL, asked).df()
    if OURS not in set(rows.model):
        return pd.DataFrame()
    table = rows.pivot(index=["week", "user_group", "users"], columns="model", values="ndcg").dropna().reset_index()
    fade = 0.5 ** ((table.week.max() - table.week).dt.days / 7 / HALF_LIFE)
    gains = {name: (table[name] - table[OURS]) * fade for name in sorted(set(rows.model) - {OURS})}
    return pd.DataFrame({"week": table.week, "user_group": table.user_group, "weight": table.users * fade, **gains})


def _best_of(gains: pd.DataFrame) -> _Best:
    from tgn_assets.ml.evaluation.intervals import p_of_best

    of_groups = gains.drop(columns="week").groupby("user_group").sum()
    mean, p = p_of_best(of_groups.drop(columns="weight").to_numpy(float), of_groups.weight.to_numpy(float))
    best = min(range(len(p)), key=lambda at: (p[at], -mean[at]))
    return _Best(of_groups.columns.drop("weight")[best], float(mean[best]), float(p[best]))
