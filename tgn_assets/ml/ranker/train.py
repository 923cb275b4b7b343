"""Training of the ranker: networks over weekly embeddings and pair features, and LambdaRank, blended.

Both learn from the same past weeks (training_set.py): what was known at a cut-off, and the events of each user in the
week after as labels. After building the datasets, last week's ranker is judged on the newest closed week, then fitted
to the past weeks with the epoch that is best in the newest, then finetuned on the newest weeks, that one included. A
cold start has no ranker of last week: networks whose epoch a week before the newest has chosen are judged in its place,
and thrown away. LambdaRank is fitted anew beside all that.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tgn_assets.ml.candidates.retrieval import candidate_feature_names
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import OPEN, Rules
from tgn_assets.ml.encoder.embeddings import NodeEmbeddings
from tgn_assets.ml.evaluation.judged_week import JudgedWeek
from tgn_assets.ml.parallel import THREADS, Workers, run_alongside
from tgn_assets.ml.processor import processor
from tgn_assets.ml.progress import LogFn, ProgressReporter, no_log
from tgn_assets.ml.ranker.baseline_fallback import BaselineFallback, untested_fallback
from tgn_assets.ml.ranker.calibration import Calibration
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, can_warm_start_from, load_model, new_ensemble
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.judge import BlendedRanker, judge, judge_baselines
from tgn_assets.ml.ranker.lambdarank import fit_lambdarank, load_boosters
from tgn_assets.ml.ranker.listwise import finetune_on_recent_weeks, fit_network, num_lists
from tgn_assets.ml.ranker.training_set import (
    EmbeddingHistory,
    PointInTimeView,
    RankingDataset,
    TrainingSet,
    blocks_of,
    build_training_set,
    embedding_width,
    split_to_choose_epoch,
)
from tgn_assets.ml.ranker.training_set_cache import TrainingSetCache, cache_keys
from tgn_assets.ml.weeks import week_key, week_number

USERS_EMBEDDED_TOGETHER = 512
"""Users whose temporal embeddings one worker computes at a time."""


@dataclass
class _Training:
    """The state of a ranker during training."""

    inputs: PointInTimeView
    workers: Workers
    progress: LogFn
    model: Ensemble
    networks: int
    """How many the ranker will have, and as many boosters; a warm start may begin with fewer."""
    warm_from: str | None
    booster: str
    fallback: BaselineFallback
    calibration: Calibration | None
    judged: tuple[JudgedWeek, ...]
    curve: list[dict[str, Any]] = field(default_factory=list)
    validation: dict[str, float] = field(default_factory=dict)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the networks' weights."""
        return {name: of.clone() for name, of in self.model.state_dict().items()}

    def fit_boosters(self, datasets: Sequence[RankingDataset], threads: int = 1) -> str:
        """The texts of boosters fitted to `datasets`, as many as networks."""
        config = self.inputs.config
        return fit_lambdarank(datasets, threads, config=config.lambdarank, seed=config.seed, boosters=self.networks)

    def restart(self, weights: dict[str, Tensor]) -> None:
        """Forgets what the networks have learned since they had `weights`."""
        self.model.load_state_dict(weights)
        self.curve = []

    @property
    def trained(self) -> bool:
        """Whether the networks have learned anything, today or before."""
        return self.warm_from is not None or bool(self.curve)


def train_ranker(
    history: InteractionHistory,
    embedding_history: EmbeddingHistory,
    week: str,
    *,
    config: RankerConfig,
    device: str = "cpu",
    progress: LogFn = no_log,
    rules: Rules = OPEN,
    cache: TrainingSetCache | None = None,
    attributes: AttributeTables = NO_ATTRIBUTES,
    earlier: RankerCheckpoint | None = None,
    workers: Workers = THREADS,
) -> RankerCheckpoint:
    """Trains the ranker as of the close of `week` on the weeks after the last `config.origins` cut-offs.

    A warm start continues from `earlier`, last week's ranker; a cold start trains one to be judged, on the weeks before
    the newest closed one. That ranker's results on the newest closed week, from which it has not learned and which has
    not chosen its number of epochs, set fallback and calibration, together with those on the weeks judged before. If
    nobody was active in the newest closed week, a warm start changes nothing; for a cold start the newest week with
    activity stands in.

    In every week only what `rules` allowed then is ranked, in lists of their length; of `attributes`, each week reads
    what was valid then. Training sets of earlier weeks are taken from `cache`, and kept there. ValueError
    unless `history` ends with `week`, `embedding_history` has no later week and `earlier` is older.
    """
    if (
        history.week != week_number(week)
        or any(key > week for key in embedding_history)
        or (earlier is not None and earlier.week >= week)
    ):
        raise ValueError(f"the ranker of week {week} was given data of another week")
    inputs = PointInTimeView(history, embedding_history, config, device, rules, attributes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000_003 + history.week)
        view = inputs.as_of(history.week - 1)
        training_sets = _build_training_sets(inputs, view, cache or TrainingSetCache(), workers, progress)
        newest = _newest_with_users(training_sets)
        past, held_out, silent = training_sets[:newest], training_sets[newest].dataset, len(training_sets) - 1 - newest
        datasets = [one.dataset for one in past if one.dataset is not None]
        training = _start(inputs, datasets, earlier, workers, progress)
        if silent:  # an earlier ranker has learned from the week held out already, and stays as it is
            view, held_out = inputs.as_of(history.week - 1 - silent), None if training.warm_from else held_out
        cold, untrained = training.warm_from is None, training.weights()
        if cold and datasets and held_out is not None:
            _fit_to_judge(training, datasets)
        if held_out is not None and training.trained:
            with run_alongside(partial(training.fit_boosters, [*datasets[1:], held_out])) as booster:
                _validate(training, past, held_out, view)
                del view  # the epochs need none of its tables, which are a large part of the memory in use by now
                if cold:
                    training.restart(untrained)
                if datasets:
                    _fit(training, datasets, held_out, warm=_add_networks(training))
                _finetune(training, [*datasets, held_out])
            training.booster = booster.result()
        elif held_out is not None:
            found = judge_baselines(history=history, view=view, held_out=held_out, workers=workers)
            training.fallback, training.validation = found.fallback, found.validation
        return _checkpoint(training, week)


def temporal_embeddings(
    ranker: RankerCheckpoint,
    history: InteractionHistory,
    embedding_history: EmbeddingHistory,
    *,
    device: str = "cpu",
    progress: LogFn = no_log,
    workers: Workers = THREADS,
) -> NodeEmbeddings:
    """The ranker's embeddings of all users and events of `history` as of its week, in blocks of users."""
    model, view = load_model(ranker, device), PointInTimeView(history, embedding_history, ranker.config)
    reporter, users = ProgressReporter(progress, "embeddings", history.num_users, "user"), list[Tensor]()
    shards = map(view.sequence, blocks_of(np.arange(history.num_users), USERS_EMBEDDED_TOGETHER))
    for block in workers.map(_embedded, model, shards):
        users.append(block)
        reporter.add(len(block))
    with torch.no_grad():
        events = model.event_embeddings(view.event_vectors().to(device)).half().cpu()
    user_idx, event_idx = torch.as_tensor(history.user_idx), torch.as_tensor(history.event_idx)
    return NodeEmbeddings(view.week, user_idx, torch.cat([events[:0], *users]), event_idx, events)


@torch.no_grad()
def _embedded(model: Ensemble, sequence: tuple[Tensor, Tensor]) -> Tensor:
    """The temporal embeddings of users with the weekly embeddings `sequence`, as `PointInTimeView.sequence` gives it;
    half precision, as they are kept."""
    return model.get_temporal_embeddings(*(x.to(model.device) for x in sequence)).half().cpu()


def _build_training_sets(
    inputs: PointInTimeView, newest: PointInTimeView, cache: TrainingSetCache, workers: Workers, progress: LogFn
) -> list[TrainingSet]:
    """Those of all cut-offs, oldest first, from `cache` where it has them; `newest` is the view of the last cut-off.

    A dataset is None if nobody was active in the week after. The last one that is there is to be held out, and whole;
    the others are `learnable`.
    """
    last = newest.past.week
    cutoffs = [*range(inputs.oldest_cutoff, last), last]
    keys = cache_keys(inputs, cutoffs)

    def build(cutoff: int) -> TrainingSet:
        return build_training_set(inputs.past, newest if cutoff == last else inputs.as_of(cutoff), workers)

    training_sets = list[TrainingSet]()
    new = [cutoff for cutoff in cutoffs if not cache.holds(week_key(cutoff), keys[cutoff])]
    reporter = ProgressReporter(progress, "ranker, training sets of past weeks", len(new), "week")
    for cutoff in cutoffs:
        training_set = cache.get(week_key(cutoff), keys[cutoff], partial(build, cutoff))
        dataset = training_set.dataset
        if dataset is not None and training_sets:
            at = _newest_with_users(training_sets)
            if (before := training_sets[at].dataset) is not None:
                training_sets[at] = replace(training_sets[at], dataset=before.learnable())
        training_sets.append(training_set)
        if cutoff in new:
            reporter.add(1, f"{week_key(cutoff)} with {0 if dataset is None else len(dataset.num_relevant):,} users")
    cache.prune_before(week_key(cutoffs[0]))
    return training_sets


def _newest_with_users(training_sets: Sequence[TrainingSet]) -> int:
    """The position of the last one that has a dataset; of the last one, if none has."""
    there = [at for at, one in enumerate(training_sets) if one.dataset is not None]
    return there[-1] if there else len(training_sets) - 1


def _start(
    inputs: PointInTimeView,
    datasets: Sequence[RankingDataset],
    earlier: RankerCheckpoint | None,
    workers: Workers,
    progress: LogFn,
) -> _Training:
    """A warm start from `earlier` if there is one that fits, or else a cold start.

    Where `datasets` have few pairs several networks and as many boosters are trained, and events are ranked by their
    mean scores.
    """
    config, pairs = inputs.config, sum(len(dataset.label) for dataset in datasets)
    networks = min(max(config.fit.pairs_per_epoch // max(pairs, 1), 1), config.networks)
    if earlier is not None and can_warm_start_from(earlier, inputs):
        # Kept unchanged if nobody was active in the newest week.
        model = Ensemble(load_model(earlier, inputs.device).members[:networks])
        of_earlier = earlier.week, earlier.booster, earlier.fallback, earlier.calibration, earlier.judged
        return _Training(inputs, workers, progress, model, networks, *of_earlier)
    width = embedding_width(inputs.embedding_history)
    model = new_ensemble(config, width=width, attributes=inputs.attributes.columns, networks=networks)
    model, fallback = model.to(inputs.device), untested_fallback(inputs.rules.k)
    return _Training(inputs, workers, progress, model, networks, None, "", fallback, None, ())


def _add_networks(training: _Training) -> int:
    """Adds those that a warm start lacks, since earlier weeks had more pairs or the configuration fewer networks; how
    many there were that have learned before."""
    inputs, members = training.inputs, list(training.model.members)
    if lacking := training.networks - len(members):
        width, attributes = embedding_width(inputs.embedding_history), inputs.attributes.columns
        new = new_ensemble(inputs.config, width=width, attributes=attributes, networks=lacking)
        training.model = Ensemble([*members, *new.to(inputs.device).members])
    return len(members) if training.warm_from else 0


def _fit_to_judge(training: _Training, datasets: list[RankingDataset]) -> None:
    """Fits networks and boosters of a cold start that have seen nothing of the week that judges them."""
    with run_alongside(partial(training.fit_boosters, datasets)) as booster, torch.random.fork_rng(devices=[]):
        _fit(training, *split_to_choose_epoch(datasets), what="ranker to judge")
    training.booster = booster.result()


def _fit(
    training: _Training,
    datasets: Sequence[RankingDataset],
    held_out: RankingDataset,
    *,
    warm: int = 0,
    what: str = "ranker",
) -> None:
    """Fits each network to the past weeks until it does no better on the one held out; the first `warm` have learned
    from weeks before."""
    config, members = training.inputs.config, training.model.members
    lists, k = num_lists(datasets), training.inputs.rules.k
    most = [lists * (config.warm_epochs if at < warm else config.epochs) for at in range(len(members))]
    reporter = ProgressReporter(training.progress, what, sum(most), "list", at_most=True)
    for at, member in enumerate(members):
        reporter.what = f"{what}, network {at + 1} of {len(members)}"
        for row in fit_network(member, datasets, held_out, config=config, k=k, warm=at < warm, on_step=reporter.add):
            training.curve.append({"network": at + 1, **row})
            loss = "" if row["loss"] is None else f"loss {row['loss']:.4f}, "
            reporter.tell(f"epoch {row['epoch']}, {loss}validation {row['validation_ndcg']:.4f}")
        reporter.set_remaining(sum(most[at + 1 :]))


def _validate(
    training: _Training, past: Sequence[TrainingSet], held_out: RankingDataset, view: PointInTimeView
) -> None:
    """Sets fallback, validation and calibration by the newest week, from which nothing has been learned yet, and the
    weeks judged before."""
    training.fallback, training.calibration, training.validation, training.judged = judge(
        BlendedRanker(training.model, load_boosters(training.booster)),
        past,
        history=training.inputs.past,
        view=view,
        held_out=held_out,
        earlier=training.judged,
        workers=training.workers,
    )


def _finetune(training: _Training, datasets: Sequence[RankingDataset]) -> None:
    """Finetunes each network on the newest weeks, the held-out one included."""
    config = training.inputs.config
    for number, member in enumerate(training.model.members, 1):
        loss = finetune_on_recent_weeks(member, datasets, config=config)
        training.curve.append({"network": number, "epoch": "final", "loss": loss, "validation_ndcg": None})
        training.progress(f"ranker, the newest {config.fit.newest_weeks} weeks: loss {loss:.4f}")


def _checkpoint(training: _Training, week: str) -> RankerCheckpoint:
    inputs, embeddings = training.inputs, training.inputs.embedding_history.get(week)
    return RankerCheckpoint(
        week=week,
        config=inputs.config,
        trained=training.trained,
        state={name: value.cpu() for name, value in training.model.state_dict().items()},
        booster=training.booster,
        curve=training.curve,
        fallback=training.fallback,
        calibration=training.calibration,
        validation=training.validation,
        k=inputs.rules.k,
        features=candidate_feature_names(inputs.config.features, inputs.attributes.columns),
        attributes=inputs.attributes.columns,
        warm_from=training.warm_from,
        embeddings=None if embeddings is None else embeddings.digest,
        processor=processor(inputs.device),
        judged=training.judged,
    )
