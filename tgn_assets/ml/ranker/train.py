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
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import OPEN, Rules
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.evaluation.baselines import BASELINES, all_baselines
from tgn_assets.ml.linalg.per_user import group_softmax
from tgn_assets.ml.linalg.topk import grouped_top_k
from tgn_assets.ml.parallel import map_threaded, run_alongside
from tgn_assets.ml.progress import LogFn, ProgressReporter, no_log
from tgn_assets.ml.ranker.baseline_fallback import (
    SEGMENTS,
    BaselineFallback,
    choose_per_segment,
    ndcg_of,
    segment_of,
    untested_fallback,
)
from tgn_assets.ml.ranker.blend import blend_scores
from tgn_assets.ml.ranker.calibration import Calibration, Logistic, calibrate, fit_activity
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, can_warm_start_from, load_model, new_model
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.lambdarank import fit_lambdarank, lambdarank_scores, load_booster
from tgn_assets.ml.ranker.listwise import finetune_on_recent_weeks, fit_network, hits_of, lists_in, network_scores
from tgn_assets.ml.ranker.training_set import EmbeddingHistory, PointInTimeView, RankingDataset, blocks_of, next_week
from tgn_assets.ml.ranker.training_set_cache import (
    TrainingSet,
    TrainingSetCache,
    build_training_set,
    cache_keys,
    oldest_cutoff,
    sampled,
)
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
    history: InteractionHistory,
    embedding_history: EmbeddingHistory,
    week: str,
    config: RankerConfig,
    device: str = "cpu",
    progress: LogFn = no_log,
    rules: Rules = OPEN,
    store: TrainingSetCache | None = None,
    attributes: AttributeTables = NO_ATTRIBUTES,
    earlier: RankerCheckpoint | None = None,
) -> RankerCheckpoint:
    """Trains the ranker as of the close of `week` on the weeks after the last `config.origins` origins.

    Gate and calibration are set by how a ranker that has not seen the newest closed week does on it. That is `earlier`,
    last week's; where there is none, or it is made for other features, one is trained on the weeks before. The network
    passes over these weeks, from last week's weights if there are any, until it does no better on the newest one, and
    at the end once over that one too; the trees are grown anew.

    Where the past weeks have few pairs there are several networks, each trained so by itself, and their mean ranks.

    In every week only what `rules` allowed then is ranked, in lists of their length; of `attributes`, the tables as of
    `week`, each week sees what counted then. Lessons of earlier weeks are taken from `store`, and kept there. `history`
    must end with `week`, `embedding_history` hold no later week and `earlier` be older: ValueError.
    """
    now, store = week_number(week), store or TrainingSetCache()
    if (
        history.week != now
        or any(key > week for key in embedding_history)
        or (earlier is not None and earlier.week >= week)
    ):
        raise ValueError(f"the ranker of week {week} was handed data of another week")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000_003 + now)
        cutoffs = [*range(oldest_cutoff(embedding_history, now, config), now - 1), now - 1]
        made_from = cache_keys(history, cutoffs, embedding_history, config, device, rules, attributes)
        newest = PointInTimeView(history.as_of(now - 1), embedding_history, config, device, rules, attributes)

        def learn(at: int) -> TrainingSet:
            view = (
                newest
                if at == now - 1
                else PointInTimeView(history.as_of(at), embedding_history, config, device, rules, attributes)
            )
            return build_training_set(history, view, config.seed)

        training_sets, new = [], [at for at in cutoffs if not store.holds(week_key(at), made_from[at])]
        pace = ProgressReporter(progress, "phase 2, lessons of past weeks", len(new), "week")
        for at in cutoffs:
            training_sets.append(store.get(week_key(at), made_from[at], partial(learn, at)))
            if at in new:
                dataset = training_sets[-1].dataset
                pace.add(1, f"{week_key(at)} with {0 if dataset is None else len(dataset.num_relevant):,} users")
        store.forget_before(week_key(cutoffs[0]))
        *past, newest_training_set = training_sets
        datasets, held_out = (
            [training_set.dataset for training_set in past if training_set.dataset is not None],
            newest_training_set.dataset,
        )
        warm = (
            earlier
            if earlier is not None
            and can_warm_start_from(earlier, config, newest.width, embedding_history, attributes.columns)
            else None
        )
        pairs = sum(len(dataset.label) for dataset in datasets)
        networks = min(max(PAIRS_PER_PASS // max(pairs, 1), 1), config.networks)
        if warm is None:
            model = new_model(config, newest.width, attributes.columns, networks).to(device)
        else:
            model = Ensemble(load_model(warm, device).members[:networks])
        trees, fallback, calibration = "", untested_fallback(rules.k), None
        if warm is not None:  # which stands as it is where nobody was active in the newest week
            trees, fallback, calibration = warm.trees, warm.fallback, warm.calibration
        curve, validation = list[dict[str, Any]](), dict[str, float]()

        def fit(held_out: RankingDataset) -> None:
            each = lists_in(datasets) * (config.epochs if warm is None else config.warm_epochs)
            pace = ProgressReporter(progress, "phase 2", each * len(model.members), "list", at_most=True)
            for number, member in enumerate(model.members, 1):
                pace.what = f"phase 2, network {number} of {len(model.members)}"
                for row in fit_network(member, datasets, held_out, config, rules.k, warm is not None, pace.add):
                    curve.append({"network": number, **row})
                    loss = "" if row["loss"] is None else f"loss {row['loss']:.4f}, "
                    pace.tell(f"epoch {row['epoch']}, {loss}validation {row['validation_ndcg']:.4f}")
                pace.left(each * (len(model.members) - number))

        if warm is None and datasets and held_out is not None:
            with run_alongside(partial(fit_lambdarank, datasets, config.seed)) as growing:
                fit(held_out)
            trees = growing.result()
        trained = warm is not None or bool(curve)
        if held_out is not None and not trained:
            fallback, validation = _gate(None, "", history, newest, held_out, config.seed)
        if held_out is not None and trained:
            with run_alongside(partial(fit_lambdarank, [*datasets[1:], held_out], config.seed)) as growing:
                # Gate and calibration judge what has not seen the newest week: nothing is learnt from it before them.
                fallback, validation = _gate(model, trees, history, newest, held_out, config.seed)
                calibration = _calibration(_activity(training_sets), model, trees, history, newest, config.seed)
                del newest  # the passes need none of its tables, which are a large part of what is held by now
                if warm is not None and datasets:
                    fit(held_out)
                for number, member in enumerate(model.members, 1):
                    loss = finetune_on_recent_weeks(member, [*datasets, held_out][-NEWEST_WEEKS:], config)
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
        fallback=fallback,
        calibration=calibration,
        validation=validation,
        k=rules.k,
        attributes=attributes.columns,
        warm_from=None if warm is None else warm.week,
        embeddings=embedding_history[week].digest if week in embedding_history else None,
    )


def temporal_embeddings(
    ranker: RankerCheckpoint,
    history: InteractionHistory,
    embedding_history: EmbeddingHistory,
    device: str = "cpu",
    progress: LogFn = no_log,
) -> NodeEmbeddings:
    """User and event embeddings of phase 2 as of the week of `history`, for all its nodes, in blocks of users."""
    model, view, users = (
        load_model(ranker, device),
        PointInTimeView(history, embedding_history, ranker.config),
        list[Tensor](),
    )
    pace = ProgressReporter(progress, "embeddings", history.num_users, "user")
    with torch.no_grad():
        for block in blocks_of(np.arange(history.num_users), USERS_PER_BLOCK):
            users.append(model.get_temporal_embeddings(*(x.to(device) for x in view.sequence(block))).cpu())
            pace.add(len(block))
        events = model.event_embeddings(view.event_vectors().to(device)).cpu()
    return NodeEmbeddings(
        view.week,
        torch.as_tensor(history.user_idx),
        torch.cat([events[:0], *users]),
        torch.as_tensor(history.event_idx),
        events,
    )


def _hits(
    model: Ensemble | None, trees: str, history: InteractionHistory, view: PointInTimeView, held_out: RankingDataset
) -> dict[str, np.ndarray]:
    """[n, k] bool per source: the users of `held_out` touched the event at that rank of its list."""
    users, past, rules = held_out.candidates.users, view.past, view.rules
    user, event, _ = next_week(history, past)
    touched = user * past.num_events + event
    hits = {
        name: np.isin(users[:, None] * past.num_events + lists, touched) & (lists >= 0)
        for name, lists in all_baselines(past, users, rules.k, rules).items()
    }
    if model is not None:
        row, features = held_out.candidates.row, held_out.candidates.features
        network, booster = network_scores(model, held_out), load_booster(trees)
        hits["network"] = hits_of(held_out, network, rules.k)
        hits["trees"] = hits_of(held_out, lambdarank_scores(booster, features), rules.k)
        hits[OURS] = hits_of(held_out, blend_scores(row, network, booster, features, rules.k), rules.k)
    return hits


def _gate(
    model: Ensemble | None,
    trees: str,
    history: InteractionHistory,
    view: PointInTimeView,
    held_out: RankingDataset,
    seed: int,
) -> tuple[BaselineFallback, dict[str, float]]:
    """Who serves which segment, from the newest closed week; and each source's NDCG@k on it."""
    hits, past = _hits(model, trees, history, view, held_out), view.past
    ndcg = {name: ndcg_of(hit, held_out.num_relevant) for name, hit in hits.items()}
    published = {name: values for name, values in ndcg.items() if name in (OURS, *BASELINES)}
    everyone = segment_of(past, np.arange(past.num_users))
    active = np.flatnonzero(next_week(history, past)[2])
    came_back = np.bincount(everyone[active], minlength=len(SEGMENTS)) / np.maximum(
        np.bincount(everyone, minlength=len(SEGMENTS)), 1
    )
    fallback = choose_per_segment(everyone[held_out.candidates.users], published, hits, came_back, seed)
    return fallback, {f"ndcg_{name}": float(values.mean()) for name, values in ndcg.items()}


def _activity(training_sets: Sequence[TrainingSet]) -> Logistic:
    """Who comes back, from all lessons but the newest, which the calibration that it is part of is fitted to."""
    *past, _ = training_sets
    features = np.concatenate([training_set.user_features for training_set in past])
    return fit_activity(features, np.concatenate([training_set.active for training_set in past]))


def _calibration(
    activity: Logistic,
    model: Ensemble,
    trees: str,
    history: InteractionHistory,
    view: PointInTimeView,
    seed: int,
) -> Calibration:
    """From what the published ranks of the newest closed week came to, among all users, active or not."""
    truth, booster = next_week(history, view.past), load_booster(trees)

    def published(users: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Share, user features and label of the pairs in the lists of `users`."""
        dataset = view.dataset(users, truth)
        row, event = dataset.candidates.row, dataset.candidates.event
        score = blend_scores(row, network_scores(model, dataset), booster, dataset.candidates.features, view.rules.k)
        top = grouped_top_k(row, score, event, len(users), view.rules.k)
        top = top[top >= 0]
        user_features = view.candidate_generator.pair_features.user_features[users[row[top]]]
        return group_softmax(row, score)[top], user_features, dataset.label[top]

    users = sampled(np.arange(view.past.num_users), seed, CALIBRATION_USERS)
    parts = zip(*map_threaded(published, blocks_of(users, CALIBRATION_BLOCK)), strict=True)
    return calibrate(activity, *(np.concatenate(part) for part in parts))
