"""What a closed week says about the lists published for it: one table, ours beside the baselines and the ceiling."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import OPEN, Rules
from tgn_assets.ml.evaluation.baselines import BASELINES, all_baselines
from tgn_assets.ml.evaluation.metrics import METRICS, coverage, mean_interval, paired_bootstrap, per_user, perfect_lists
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import shift, week_key, week_number

CEILING, CANDIDATES, UNGATED = "ceiling", "candidates", "ungated"
SEGMENTS = ("all", "seen", "repeat", "explore", "new")
COLUMNS = ["week", "model", "segment", "metric", "value", "ci_low", "ci_high", "users"]
NAN = float("nan")
Row = tuple[str, str, str, float, float, float, int]
"""`COLUMNS` without the week."""

BINS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 1.0)
"""Edges of the bins of published scores in which predicted and observed frequency are compared."""


class RankerDiagnostics(NamedTuple):
    """What the ranker had before the gate, for those who ask."""

    channels: tuple[str, ...]
    found: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    """(user positions [n], row in them [m], event position [m]) of pairs -> [m, channels] bool: the channel had the
    pair among its candidates."""
    lists: Callable[[np.ndarray], np.ndarray]
    """User positions [n] -> [n, k] the ranker's own lists: event positions, -1 for an empty place."""


def evaluate_week(
    week: str,
    predictions: pd.DataFrame,
    new_user_list: list[str],
    truth: pd.DataFrame,
    history: InteractionHistory,
    user_ids: np.ndarray,
    event_ids: np.ndarray,
    diagnostics: RankerDiagnostics | None = None,
    seed: int = 0,
    rules: Rules = OPEN,
) -> pd.DataFrame:
    """Scores the lists published for `week` on what its users did, in rows of the table `eval_metrics`.

    `predictions` (user_id, rank from 1, event_id, and optionally source) and `new_user_list` are what was published a
    week before; an active user without predictions is scored on the list for new users. `truth` (user_id, event_id)
    are the interactions of `week`. `history` is what was known before it, `user_ids` and `event_ids` the text ids of
    its positions: the baselines and the ceiling see nothing else. `rules` are those that the lists were published
    under, and hold for all of them.

    Every model has a mean over users and its 95% interval for each of `METRICS` in each segment, by what an active user
    did: `all`; `seen` with a history; `repeat` with an event of their own past, `explore` with one that is not (a
    user may be in both); `new` without a history. `ceiling` is a ranker that knows the truth but, like everybody, only
    events seen before the week. With `diagnostics`, what the ranker of the week before had, there are two more:
    `candidates`
    is a perfect ranking of the candidates that it had, `ungated` its lists as they would have been without the gate. So
    a point lost lies between ceiling and candidates (recall), candidates and ungated (ranking), or ungated and ours
    (the gate). Besides:

    - `coverage`, segment all: share of the known events that the lists of the week's active users hold
    - `served`, ours: share of the active users who had a list of their own; `share_of_source:<name>`, ours, segment
      all: share whose list came from that source. Shares are counts, not estimates, and have no interval.
    - `ndcg_lift`, in the rows of a baseline: our NDCG minus the baseline's, with a paired interval over users;
      `ndcg_lift_relative`: the same divided by the baseline's; `ndcg_lift_p`: share of resamples without a gain.
    - `candidate_recall`, candidates, segment seen: share of a user's touched events that were among the candidates, and
      `candidate_recall:<channel>` that one recall channel had
    - if the predictions have a score: `brier`, ours, segment all: mean squared difference between it and what happened
      (1 touched, 0 not), over all published pairs of all users, active or not; `brier_constant`: the same had every
      score been the mean frequency; `predicted:<bin>` and `observed:<bin>`: mean score and frequency of the pairs whose
      score lies in the bin. `users` counts pairs in these rows.

    `users` counts the active users of the segment. Where there are none, values are NaN (NULL in the warehouse); so are
    the intervals of a single user. Raises ValueError if `history` is not that of the week before, or does not fit its
    ids, or if the predictions hold a rank or an event twice or a rank outside 1 to k.
    """
    if history.week != week_number(week) - 1:
        raise ValueError(
            f"week {week} is scored with the history up to {shift(week, -1)}, not {week_key(history.week)}"
        )
    if (len(user_ids), len(event_ids)) != (history.num_users, history.num_events):
        raise ValueError("user_ids and event_ids must name the positions of the history, one for one")
    truth = truth[["user_id", "event_id"]].drop_duplicates()
    active = pd.Index(np.unique(truth.user_id.to_numpy(object)), dtype=object)
    calibration = _calibration(predictions, truth)
    predictions, sources = predictions[predictions.user_id.isin(active)], _sources(predictions)
    events = event_codes(event_ids, predictions.event_id, new_user_list, truth.event_id)
    users = _look_up(pd.Index(user_ids, dtype=object), active)
    truth_user, truth_event = _look_up(active, truth.user_id), _look_up(events, truth.event_id)

    reachable = truth_event < history.num_events
    reachable[reachable] = rules.may(history, users[truth_user[reachable]], truth_event[reachable])
    lists = {
        OURS: published_lists(predictions, new_user_list, active, events, rules.k),
        **all_baselines(history, users, rules.k, rules),
        CEILING: perfect_lists(truth_user, truth_event, reachable, len(active), rules.k),
    }
    recalled: list[Row] = []
    if diagnostics is not None:
        newcomers = _look_up(events, new_user_list)
        lists[UNGATED] = lists[OURS].copy()
        # What the ranker made is there, unless other events were brought into its lists afterwards.
        as_made = _by_source(predictions, active, OURS) & (rules.min_distinct == 0)
        unknown = (users >= 0) & ~as_made
        lists[UNGATED][unknown] = diagnostics.lists(users[unknown])
        found, recalled = _found(diagnostics, users, truth_user, truth_event, reachable, newcomers)
        lists[CANDIDATES] = perfect_lists(truth_user, truth_event, found, len(active), rules.k)
    scores = {model: per_user(of_model, truth_user, truth_event) for model, of_model in lists.items()}
    served = active.isin(predictions.user_id)
    rows = calibration + recalled
    for segment, members in _segments(history, users, truth_user, truth_event).items():
        within = {model: values[members] for model, values in scores.items()}
        rows += _means(segment, within, seed) + _lifts(segment, within, seed)
        rows.append(_number(OURS, segment, "served", _mean(served[members]), int(members.sum())))
    for model in (OURS, *BASELINES):
        value = coverage(lists[model], history.num_events) if len(active) else NAN
        rows.append(_number(model, "all", "coverage", value, len(active)))
    for source in sources:
        share = _by_source(predictions, active, source)
        rows.append(_number(OURS, "all", f"share_of_source:{source}", _mean(share), len(active)))
    return pd.DataFrame([(week, *row) for row in rows], columns=COLUMNS)


def event_codes(event_ids: np.ndarray, *others: Iterable[str]) -> pd.Index:
    """Event codes: the positions of the history, then every other id, which nobody could know."""
    known = pd.Index(event_ids, dtype=object)
    rest = pd.Index(np.unique(np.concatenate([np.asarray(ids, dtype=object) for ids in others])), dtype=object)
    return known.append(rest.difference(known))


def _look_up(ids: pd.Index, wanted: Iterable[str]) -> np.ndarray:
    """The position in `ids` of each of `wanted`, -1 if it is not there; of categorical ones each value is looked up
    once."""
    if isinstance(wanted, pd.Series) and isinstance(wanted.dtype, pd.CategoricalDtype):
        return _look_up(ids, wanted.cat.categories)[wanted.cat.codes]
    return ids.get_indexer(pd.Index(wanted, dtype=object))


def published_lists(
    predictions: pd.DataFrame, new_user_list: list[str], active: pd.Index, events: pd.Index, k: int
) -> np.ndarray:
    """The published lists [n, k] of the active users."""
    rank = predictions["rank"].to_numpy()
    if not np.isin(rank, np.arange(1, k + 1)).all() or predictions.duplicated(["user_id", "rank"]).any():
        raise ValueError(f"a user's predictions must have distinct ranks from 1 to {k}")
    if len(new_user_list) > k:
        raise ValueError(f"the list for new users has {len(new_user_list)} events, more than {k}")
    lists = np.full((len(active), k), -1)
    lists[:, : len(new_user_list)] = _look_up(events, new_user_list)
    lists[active.isin(predictions.user_id)] = -1
    lists[_look_up(active, predictions.user_id), rank.astype(int) - 1] = _look_up(events, predictions.event_id)
    return lists


def _found(
    diagnostics: RankerDiagnostics,
    users: np.ndarray,
    truth_user: np.ndarray,
    truth_event: np.ndarray,
    reachable: np.ndarray,
    newcomers: np.ndarray,
) -> tuple[np.ndarray, list[Row]]:
    """Which touched pairs [m] were among the candidates, and the recall of these."""
    seen = np.flatnonzero(users >= 0)
    asked = reachable & (users[truth_user] >= 0)
    of_channel = diagnostics.found(users[seen], np.searchsorted(seen, truth_user[asked]), truth_event[asked])
    # A user without a history has the list for new users to choose from, and nothing else.
    found = np.isin(truth_event, newcomers) & reachable
    found[asked] = of_channel.any(1)
    rows = []
    size = np.bincount(truth_user, minlength=len(users))[seen]
    by_channel = {f"candidate_recall:{name}": of_channel[:, at] for at, name in enumerate(diagnostics.channels)}
    for metric, had in {"candidate_recall": found[asked], **by_channel}.items():
        share = np.bincount(truth_user[asked], had, len(users))[seen] / size
        rows.append(_number(CANDIDATES, "seen", metric, float(share.mean()) if len(seen) else NAN, len(seen)))
    return found, rows


def _calibration(predictions: pd.DataFrame, truth: pd.DataFrame) -> list[Row]:
    if "score" not in predictions or predictions.empty:
        return []
    users, events = (pd.Index(truth[name].unique(), dtype=object) for name in ("user_id", "event_id"))
    (user, event), happened = (
        (_look_up(users, frame.user_id), _look_up(events, frame.event_id)) for frame in (predictions, truth)
    )
    pairs = np.where((user < 0) | (event < 0), -1, user * len(events) + event)
    touched = np.isin(pairs, happened[0] * len(events) + happened[1]).astype(float)
    score = predictions.score.to_numpy(float)
    frequency = touched.mean()
    rows = [
        _number(OURS, "all", "brier", float(((score - touched) ** 2).mean()), len(score)),
        _number(OURS, "all", "brier_constant", float(frequency * (1 - frequency)), len(score)),
    ]
    bins = np.digitize(score, BINS[1:-1])
    for at in np.unique(bins):
        name, here = f"{BINS[at]:g}-{BINS[at + 1]:g}", bins == at
        rows.append(_number(OURS, "all", f"predicted:{name}", float(score[here].mean()), int(here.sum())))
        rows.append(_number(OURS, "all", f"observed:{name}", float(touched[here].mean()), int(here.sum())))
    return rows


def _segments(
    history: InteractionHistory, users: np.ndarray, truth_user: np.ndarray, truth_event: np.ndarray
) -> dict[str, np.ndarray]:
    """Which of the active users [n] are in each of `SEGMENTS`."""
    seen = users >= 0
    active = np.zeros(history.num_users, bool)
    active[users[seen]] = True
    past = active[history.user]
    # A pair is one number: a new user's are negative, and a new event's must not pass for the next user's first.
    known = truth_event < history.num_events
    pair = users[truth_user] * history.num_events + truth_event
    own = known & np.isin(pair, history.user[past] * history.num_events + history.event[past])
    return {
        "all": np.ones(len(users), bool),
        "seen": seen,
        "repeat": np.bincount(truth_user[own], minlength=len(users)) > 0,
        "explore": np.bincount(truth_user[~own], minlength=len(users)) > 0,
        "new": ~seen,
    }


def _means(segment: str, scores: dict[str, pd.DataFrame], seed: int) -> list[Row]:
    values = np.hstack([of_model.to_numpy() for of_model in scores.values()])
    mean = values.mean(0) if len(values) else np.full(values.shape[1], NAN)
    low, high = mean_interval(values, seed=seed)
    names = [(model, segment, metric) for model in scores for metric in METRICS]
    return [
        (*name, float(m), float(a), float(b), len(values)) for name, m, a, b in zip(names, mean, low, high, strict=True)
    ]


def _lifts(segment: str, scores: dict[str, pd.DataFrame], seed: int) -> list[Row]:
    rows: list[Row] = []
    ours = scores[OURS].ndcg.to_numpy()
    for baseline in BASELINES:
        lift = paired_bootstrap(ours, scores[baseline].ndcg.to_numpy(), seed=seed)
        rows.append((baseline, segment, "ndcg_lift", lift.difference, lift.ci_low, lift.ci_high, len(ours)))
        rows.append(_number(baseline, segment, "ndcg_lift_relative", lift.relative, len(ours)))
        rows.append(_number(baseline, segment, "ndcg_lift_p", lift.p, len(ours)))
    return rows


def _number(model: str, segment: str, metric: str, value: float, users: int) -> Row:
    return model, segment, metric, value, NAN, NAN, users


def _mean(flags: np.ndarray) -> float:
    return float(flags.mean()) if len(flags) else NAN


def _by_source(predictions: pd.DataFrame, active: pd.Index, source: str) -> np.ndarray:
    """[n] bool: the active user's list came from `source`; nobody's where the predictions do not say."""
    if "source" not in predictions:
        return np.zeros(len(active), bool)
    return active.isin(predictions.user_id[predictions.source == source])


def _sources(predictions: pd.DataFrame) -> list[str]:
    return sorted(predictions.source.unique()) if "source" in predictions else []
