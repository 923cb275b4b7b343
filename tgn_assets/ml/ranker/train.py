"""Phase 2: the Transformer over weekly embeddings and the pair's evidence, trained to rank the week after each origin.

Two rankers learn from the same weeks, the network and gradient-boosted trees; their blend is the ranker. An origin is a
closed week; what the ranker sees of it was known at its close (its history, and the embeddings that the encoder of that
week gave), and what it learns to predict is the distinct events each user touched in the week after.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.data.attributes import NO_TABLES, SideTables
from tgn_assets.ml.data.interactions import History
from tgn_assets.ml.data.policy import OPEN, Rules
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.evaluation.baselines import BASELINES, all_baselines
from tgn_assets.ml.linalg.per_user import shares
from tgn_assets.ml.linalg.topk import grouped_top_k
from tgn_assets.ml.parallel import beside, in_threads
from tgn_assets.ml.progress import Pace, Say, nothing
from tgn_assets.ml.ranker.baseline_fallback import SEGMENTS, Gate, choose_sources, ndcg_of, segment_of, untested_gate
from tgn_assets.ml.ranker.blend import blended
from tgn_assets.ml.ranker.calibration import Calibration, Logistic, calibrate, fit_activity
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, goes_on, load_model, new_model
from tgn_assets.ml.ranker.ensemble import Committee
from tgn_assets.ml.ranker.lambdarank import fit_trees, read_trees, tree_scores
from tgn_assets.ml.ranker.listwise import catch_up, fit_network, hits_of, lists_in, network_scores
from tgn_assets.ml.ranker.training_set import Bank, Frame, Origin, blocks_of, next_week
from tgn_assets.ml.ranker.training_set_cache import Lesson, LessonStore, lesson_of, names, oldest_origin, sampled
from tgn_assets.ml.schema import OURS
from tgn_assets.ml.weeks import week_key, week_number

USERS_PER_BLOCK = 2048
CALIBRATION_USERS = 2048
"""Users whose lists the scores are calibrated on: three numbers are fitted to five times as many pairs or more."""
CALIBRATION_BLOCK = 512
PAIRS_PER_PASS = 400_000
"""Pairs that all networks together may pass over at a time: beyond it a second one is not worth its time."""
NEWEST_WEEKS = 3
"""Weeks that the network passes over once more at the end, the one that was held out among them."""


def train_ranker(
    history: History,
    bank: Bank,
    week: str,
    config: RankerConfig,
    device: str = "cpu",
    progress: Say = nothing,
    rules: Rules = OPEN,
    store: LessonStore | None = None,
    side: SideTables = NO_TABLES,
    earlier: RankerCheckpoint | None = None,
) -> RankerCheckpoint:
    """Trains the ranker as of the close of `week` on the weeks after the last `config.origins` origins.

    Gate and calibration are set by how a ranker that has not seen the newest closed week does on it. That is `earlier`,
    last week's; where there is none, or it is made for other features, one is trained on the weeks before. The network
    passes over these weeks, from last week's weights if there are any, until it does no better on the newest one, and
    at the end once over that one too; the trees are grown anew.

    Where the past weeks have few pairs there are several networks, each trained so by itself, and their mean ranks.

    In every week only what `rules` allowed then is ranked, in lists of their length; of `side`, the tables as of
    `week`, each week sees what counted then. Lessons of earlier weeks are taken from `store`, and kept there. `history`
    must end with `week`, `bank` hold no later week and `earlier` be older: ValueError.
    """
    now, store = week_number(week), store or LessonStore()
    if history.week != now or any(key > week for key in bank) or (earlier is not None and earlier.week >= week):
        raise ValueError(f"the ranker of week {week} was handed data of another week")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000_003 + now)
        origins = [*range(oldest_origin(bank, now, config), now - 1), now - 1]
        made_from = names(history, origins, bank, config, device, rules, side)
        newest = Origin(history.until(now - 1), bank, config, device, rules, side)

        def learn(at: int) -> Lesson:
            origin = newest if at == now - 1 else Origin(history.until(at), bank, config, device, rules, side)
            return lesson_of(history, origin, config.seed)

        lessons, new = [], [at for at in origins if not store.holds(week_key(at), made_from[at])]
        pace = Pace(progress, "phase 2, lessons of past weeks", len(new), "week")
        for at in origins:
            lessons.append(store.get(week_key(at), made_from[at], partial(learn, at)))
            if at in new:
                frame = lessons[-1].frame
                pace.add(1, f"{week_key(at)} with {0 if frame is None else len(frame.truth_size):,} users")
        store.forget_before(week_key(origins[0]))
        *past, newest_lesson = lessons
        frames, held_out = [lesson.frame for lesson in past if lesson.frame is not None], newest_lesson.frame
        warm = earlier if earlier is not None and goes_on(earlier, config, newest.width, bank, side.columns) else None
        pairs = sum(len(frame.label) for frame in frames)
        networks = min(max(PAIRS_PER_PASS // max(pairs, 1), 1), config.networks)
        if warm is None:
            model = new_model(config, newest.width, side.columns, networks).to(device)
        else:
            model = Committee(load_model(warm, device).members[:networks])
        trees, gate, calibration = "", untested_gate(rules.k), None
        if warm is not None:  # which stands as it is where nobody was active in the newest week
            trees, gate, calibration = warm.trees, warm.gate, warm.calibration
        curve, validation = list[dict[str, Any]](), dict[str, float]()

        def fit(held_out: Frame) -> None:
            each = lists_in(frames) * (config.epochs if warm is None else config.warm_epochs)
            pace = Pace(progress, "phase 2", each * len(model.members), "list", at_most=True)
            for number, member in enumerate(model.members, 1):
                pace.what = f"phase 2, network {number} of {len(model.members)}"
                for row in fit_network(member, frames, held_out, config, rules.k, warm is not None, pace.add):
                    curve.append({"network": number, **row})
                    loss = "" if row["loss"] is None else f"loss {row['loss']:.4f}, "
                    pace.tell(f"epoch {row['epoch']}, {loss}validation {row['validation_ndcg']:.4f}")
                pace.left(each * (len(model.members) - number))

        if warm is None and frames and held_out is not None:
            with beside(partial(fit_trees, frames, config.seed)) as growing:
                fit(held_out)
            trees = growing.result()
        trained = warm is not None or bool(curve)
        if held_out is not None and not trained:
            gate, validation = _gate(None, "", history, newest, held_out, config.seed)
        if held_out is not None and trained:
            with beside(partial(fit_trees, [*frames[1:], held_out], config.seed)) as growing:
                # Gate and calibration judge what has not seen the newest week: nothing is learnt from it before them.
                gate, validation = _gate(model, trees, history, newest, held_out, config.seed)
                calibration = _calibration(_activity(lessons), model, trees, history, newest, config.seed)
                del newest  # the passes need none of its tables, which are a large part of what is held by now
                if warm is not None and frames:
                    fit(held_out)
                for number, member in enumerate(model.members, 1):
                    loss = catch_up(member, [*frames, held_out][-NEWEST_WEEKS:], config)
                    curve.append({"network": number, "epoch": "final", "loss": loss, "validation_ndcg": None})
                    progress(f"phase 2, the newest {NEWEST_WEEKS} weeks: loss {loss:.4f}")
            trees = growing.result()
        state = {name: value.cpu() for name, value in model.state_dict().items()}
    return RankerCheckpoint(
        week=week,
        config=config,
        trained=trained,
        state=state,
        trees=trees,
        curve=curve,
        gate=gate,
        calibration=calibration,
        validation=validation,
        k=rules.k,
        side=side.columns,
        warm_from=None if warm is None else warm.week,
        embeddings=bank[week].digest if week in bank else None,
    )


def temporal_embeddings(
    ranker: RankerCheckpoint, history: History, bank: Bank, device: str = "cpu", progress: Say = nothing
) -> NodeEmbeddings:
    """User and event embeddings of phase 2 as of the week of `history`, for all its nodes, in blocks of users."""
    model, origin, users = load_model(ranker, device), Origin(history, bank, ranker.config), list[Tensor]()
    pace = Pace(progress, "embeddings", history.num_users, "user")
    with torch.no_grad():
        for block in blocks_of(np.arange(history.num_users), USERS_PER_BLOCK):
            users.append(model.get_temporal_embeddings(*(x.to(device) for x in origin.sequence(block))).cpu())
            pace.add(len(block))
        events = model.event_embeddings(origin.event_vectors().to(device)).cpu()
    return NodeEmbeddings(
        origin.week,
        torch.as_tensor(history.user_idx),
        torch.cat([events[:0], *users]),
        torch.as_tensor(history.event_idx),
        events,
    )


def _hits(
    model: Committee | None, trees: str, history: History, origin: Origin, held_out: Frame
) -> dict[str, np.ndarray]:
    """[n, k] bool per source: the users of `held_out` touched the event at that rank of its list."""
    users, past, rules = held_out.candidates.users, origin.past, origin.rules
    user, event, _ = next_week(history, past)
    touched = user * past.num_events + event
    hits = {
        name: np.isin(users[:, None] * past.num_events + lists, touched) & (lists >= 0)
        for name, lists in all_baselines(past, users, rules.k, rules).items()
    }
    if model is not None:
        row, features = held_out.candidates.row, held_out.candidates.features
        network, forest = network_scores(model, held_out), read_trees(trees)
        hits["network"] = hits_of(held_out, network, rules.k)
        hits["trees"] = hits_of(held_out, tree_scores(forest, features), rules.k)
        hits[OURS] = hits_of(held_out, blended(row, network, forest, features, rules.k), rules.k)
    return hits


def _gate(
    model: Committee | None, trees: str, history: History, origin: Origin, held_out: Frame, seed: int
) -> tuple[Gate, dict[str, float]]:
    """Who serves which segment, from the newest closed week; and each source's NDCG@k on it."""
    hits, past = _hits(model, trees, history, origin, held_out), origin.past
    ndcg = {name: ndcg_of(hit, held_out.truth_size) for name, hit in hits.items()}
    published = {name: values for name, values in ndcg.items() if name in (OURS, *BASELINES)}
    everyone = segment_of(past, np.arange(past.num_users))
    active = np.flatnonzero(next_week(history, past)[2])
    came_back = np.bincount(everyone[active], minlength=len(SEGMENTS)) / np.maximum(
        np.bincount(everyone, minlength=len(SEGMENTS)), 1
    )
    gate = choose_sources(everyone[held_out.candidates.users], published, hits, came_back, seed)
    return gate, {f"ndcg_{name}": float(values.mean()) for name, values in ndcg.items()}


def _activity(lessons: Sequence[Lesson]) -> Logistic:
    """Who comes back, from all lessons but the newest, which the calibration that it is part of is fitted to."""
    *past, _ = lessons
    features = np.concatenate([lesson.user_features for lesson in past])
    return fit_activity(features, np.concatenate([lesson.active for lesson in past]))


def _calibration(
    activity: Logistic,
    model: Committee,
    trees: str,
    history: History,
    origin: Origin,
    seed: int,
) -> Calibration:
    """From what the published ranks of the newest closed week came to, among all users, active or not."""
    truth, forest = next_week(history, origin.past), read_trees(trees)

    def published(users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Share, user features and label of the pairs in the lists of `users`."""
        frame = origin.frame(users, truth)
        row, event = frame.candidates.row, frame.candidates.event
        score = blended(row, network_scores(model, frame), forest, frame.candidates.features, origin.rules.k)
        top = grouped_top_k(row, score, event, len(users), origin.rules.k)
        top = top[top >= 0]
        user_features = origin.recall.evidence.user_features[users[row[top]]]
        return shares(row, score)[top], user_features, frame.label[top]

    users = sampled(np.arange(origin.past.num_users), seed, CALIBRATION_USERS)
    parts = zip(*in_threads(published, blocks_of(users, CALIBRATION_BLOCK)), strict=True)
    return calibrate(activity, *(np.concatenate(part) for part in parts))
