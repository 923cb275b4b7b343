"""Training of the ranker: networks over weekly embeddings and pair features, and LambdaRank, blended.

Both learn from past weeks (training_set.py): what was known at a cut-off, and as labels each user's events in the week
after. The newest of these weeks is held out at first:

1. Last week's ranker is judged on it. A cold start has none, and judges a ranker that it fits to the weeks before the
   held-out one, and throws away.
2. The networks are fitted to the weeks before it; it chooses the number of epochs.
3. The networks are finetuned on the newest weeks, the held-out one included.

Meanwhile LambdaRank is fitted anew, to the held-out week too.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tgn_assets.ml.candidates.retrieval import candidate_feature_names
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.data.attributes import NO_ATTRIBUTES, AttributeTables
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.data.policy import NO_RULES, Rules
from tgn_assets.ml.parallel import THREADS, Workers, run_alongside
from tgn_assets.ml.processor import processor, seeded
from tgn_assets.ml.progress import LogFn, ProgressReporter, no_log
from tgn_assets.ml.ranker.baseline_fallback import untested_fallback
from tgn_assets.ml.ranker.checkpoint import RankerCheckpoint, can_warm_start_ranker, load_model, new_ensemble
from tgn_assets.ml.ranker.ensemble import Ensemble
from tgn_assets.ml.ranker.judge import BlendedRanker, Judgement, judge, judge_baselines
from tgn_assets.ml.ranker.lambdarank import fit_lambdarank, load_boosters
from tgn_assets.ml.ranker.listwise import finetune_on_recent_weeks, fit_network, num_lists
from tgn_assets.ml.ranker.training_set import (
    EmbeddingHistory,
    PointInTimeView,
    RankingDataset,
    TrainingSet,
    build_training_set,
    embedding_width,
    split_to_choose_epoch,
)
from tgn_assets.ml.ranker.training_set_cache import TrainingSetCache, cache_keys
from tgn_assets.ml.weeks import week_key, week_number


@dataclass
class _TrainingState:
    """A ranker while it is trained."""

    inputs: PointInTimeView
    workers: Workers
    progress: LogFn
    model: Ensemble
    num_networks: int
    """How many networks, and as many boosters, the finished ranker has; a warm start may begin with fewer networks."""
    judgement: Judgement
    warm_from: str | None = None
    """The week of the ranker that this one continues from; None: a cold start."""
    booster: str = ""
    curve: list[dict[str, Any]] = field(default_factory=list)

    def reset(self, weights: dict[str, Tensor]) -> None:
        """Forgets what the networks have learned since they had `weights`."""
        self.model.load_state_dict(weights)
        self.curve = []

    def fit_boosters(self, datasets: Sequence[RankingDataset], threads: int = 1) -> str:
        """The texts of boosters fitted to `datasets`, as many as networks."""
        config = self.inputs.config
        return fit_lambdarank(datasets, threads, config=config.lambdarank, seed=config.seed, boosters=self.num_networks)

    def checkpoint(self) -> RankerCheckpoint:
        """The ranker as it is now."""
        inputs, embeddings = self.inputs, self.inputs.embedding_history.get(self.inputs.week)
        return RankerCheckpoint(
            week=inputs.week,
            config=inputs.config,
            trained=self.warm_from is not None or bool(self.curve),
            state={name: value.cpu() for name, value in self.model.state_dict().items()},
            booster=self.booster,
            curve=self.curve,
            k=inputs.rules.k,
            features=candidate_feature_names(inputs.config.features, inputs.attributes.columns),
            attributes=inputs.attributes.columns,
            warm_from=self.warm_from,
            embeddings=None if embeddings is None else embeddings.digest,
            processor=processor(inputs.device),
            **self.judgement._asdict(),
        )


def train_ranker(
    history: InteractionHistory,
    embedding_history: EmbeddingHistory,
    week: str,
    *,
    config: RankerConfig,
    device: str = "cpu",
    progress: LogFn = no_log,
    rules: Rules = NO_RULES,
    cache: TrainingSetCache | None = None,
    attributes: AttributeTables = NO_ATTRIBUTES,
    earlier: RankerCheckpoint | None = None,
    workers: Workers = THREADS,
) -> RankerCheckpoint:
    """Trains the ranker as of the close of `week` on the weeks after the last `config.origins` + 1 cut-offs.

    A warm start continues from `earlier`, last week's ranker, and judges it on the newest closed week; a cold start
    first trains a ranker to be judged. The one that is judged has neither learned from that week nor chosen its number
    of epochs by it. The judgement, with those of the weeks before, sets fallback and calibration. If nobody was active
    in the newest closed week, a warm start changes nothing; a cold start takes the newest week with activity.

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
    with seeded(config.seed, history.week):
        return _train(inputs, earlier, cache or TrainingSetCache(), workers, progress).checkpoint()


def _train(
    inputs: PointInTimeView,
    earlier: RankerCheckpoint | None,
    cache: TrainingSetCache,
    workers: Workers,
    progress: LogFn,
) -> _TrainingState:
    view = inputs.as_of(inputs.past.week - 1)
    past, held_out, silent_weeks = _build_training_sets(inputs, view, cache, workers, progress)
    datasets = [of for training_set in past if (of := training_set.dataset) is not None and of.has_positive.any()]
    state = _start(inputs, datasets, earlier, workers, progress)
    cold = state.warm_from is None
    if held_out is None:
        return state
    if silent_weeks:
        if not cold:  # `earlier` has learned from the newest week with activity already
            return state
        view = inputs.as_of(view.past.week - silent_weeks)
    if cold and not datasets:
        state.judgement = judge_baselines(history=inputs.past, view=view, held_out=held_out, workers=workers)
        return state
    if cold:
        untrained = deepcopy(state.model.state_dict())
        _fit_ranker_to_judge(state, datasets)
    newest = [*datasets[1:], held_out]  # as many weeks as the judged boosters learned from
    with run_alongside(partial(state.fit_boosters, newest)) as booster:
        _judge(state, past, held_out, view)
        del view  # the epochs need none of its tables, which are a large part of the memory in use by now
        if cold:
            state.reset(untrained)
        if datasets:
            num_warm = _add_networks(state)
            _fit_networks(state, datasets, held_out, num_warm=num_warm)
        _finetune(state, [*datasets, held_out])
    state.booster = booster.result()
    return state


def _build_training_sets(
    inputs: PointInTimeView, newest: PointInTimeView, cache: TrainingSetCache, workers: Workers, progress: LogFn
) -> tuple[list[TrainingSet], RankingDataset | None, int]:
    """(the training sets before the one that is held out, oldest first; that one's dataset; closed weeks since).

    The newest week in which anybody was active is held out; None if there is no such week. `newest` is the view of the
    last cut-off. Training sets are taken from `cache` where it has them. The held-out one keeps all candidates, to be
    judged by; the others only those that carry loss, to save memory.
    """
    last = newest.past.week
    cutoffs = range(min(inputs.oldest_cutoff, last), last + 1)  # the last one even if embeddings begin later
    keys = cache_keys(inputs, cutoffs)

    def build(cutoff: int) -> TrainingSet:
        return build_training_set(inputs.past, newest if cutoff == last else inputs.as_of(cutoff), workers)

    training_sets, newest_active = list[TrainingSet](), None
    new = [cutoff for cutoff in cutoffs if not cache.holds(week_key(cutoff), keys[cutoff])]
    reporter = ProgressReporter(progress, "ranker, training sets of past weeks", len(new), "week")
    for position, cutoff in enumerate(cutoffs):
        training_set = cache.get(week_key(cutoff), keys[cutoff], partial(build, cutoff))
        dataset = training_set.dataset
        if dataset is not None:
            if newest_active is not None:
                training_sets[newest_active] = training_sets[newest_active].keep_candidates_with_loss()
            newest_active = position
        training_sets.append(training_set)
        if cutoff in new:
            reporter.add(1, f"{week_key(cutoff)} with {0 if dataset is None else len(dataset.num_relevant):,} users")
    cache.prune_before(week_key(cutoffs[0]))
    if newest_active is None:
        return training_sets, None, 0
    held_out, silent_weeks = training_sets[newest_active].dataset, len(cutoffs) - 1 - newest_active
    return training_sets[:newest_active], held_out, silent_weeks


def _start(
    inputs: PointInTimeView,
    datasets: Sequence[RankingDataset],
    earlier: RankerCheckpoint | None,
    workers: Workers,
    progress: LogFn,
) -> _TrainingState:
    """A warm start from `earlier` if there is one that fits, or else a cold start.

    The fewer pairs `datasets` have, the more networks and boosters are trained; events are ranked by their mean scores.
    """
    config, pairs = inputs.config, sum(len(dataset.label) for dataset in datasets)
    num_networks = min(max(config.fit.pairs_per_epoch // max(pairs, 1), 1), config.networks)
    if earlier is not None and can_warm_start_ranker(earlier, inputs):
        return _TrainingState(
            inputs,
            workers,
            progress,
            Ensemble(load_model(earlier, inputs.device).members[:num_networks]),
            num_networks,
            # What follows stays as it is if nobody was active in the newest week.
            Judgement(earlier.fallback, earlier.calibration, {}, earlier.judged),
            warm_from=earlier.week,
            booster=earlier.booster,
        )
    untrained, untested = _untrained(inputs, num_networks), Judgement(untested_fallback(inputs.rules.k), None, {}, ())
    return _TrainingState(inputs, workers, progress, untrained, num_networks, untested)


def _untrained(inputs: PointInTimeView, networks: int) -> Ensemble:
    """So many networks without training, for data of the shape of `inputs`."""
    width, attributes = embedding_width(inputs.embedding_history), inputs.attributes.columns
    return new_ensemble(inputs.config, width=width, attributes=attributes, networks=networks).to(inputs.device)


def _add_networks(state: _TrainingState) -> int:
    """Adds the networks that a warm start lacks, since earlier weeks had more pairs or the configuration fewer of them.

    Returns how many have learned before.
    """
    members = list(state.model.members)
    if lacking := state.num_networks - len(members):
        state.model = Ensemble([*members, *_untrained(state.inputs, lacking).members])
    return len(members) if state.warm_from else 0


def _fit_ranker_to_judge(state: _TrainingState, datasets: list[RankingDataset]) -> None:
    """Fits networks and boosters of a cold start that have seen nothing of the week that judges them."""
    with run_alongside(partial(state.fit_boosters, datasets)) as booster, torch.random.fork_rng(devices=[]):
        _fit_networks(state, *split_to_choose_epoch(datasets), what="ranker to judge")
    state.booster = booster.result()


def _judge(state: _TrainingState, past: Sequence[TrainingSet], held_out: RankingDataset, view: PointInTimeView) -> None:
    """Judges by the held-out week, from which nothing has been learned yet, and the weeks judged before."""
    state.judgement = judge(
        BlendedRanker(state.model, load_boosters(state.booster)),
        past,
        history=state.inputs.past,
        view=view,
        held_out=held_out,
        earlier=state.judgement.judged,
        workers=state.workers,
    )


def _fit_networks(
    state: _TrainingState,
    datasets: Sequence[RankingDataset],
    held_out: RankingDataset,
    *,
    num_warm: int = 0,
    what: str = "ranker",
) -> None:
    """Fits each network to the past weeks until it does no better on the one held out; the first `num_warm` have
    learned from weeks before."""
    config, members = state.inputs.config, state.model.members
    lists, k = num_lists(datasets), state.inputs.rules.k
    max_lists = num_warm * [lists * config.warm_epochs] + (len(members) - num_warm) * [lists * config.epochs]
    reporter = ProgressReporter(state.progress, what, sum(max_lists), "list", at_most=True)
    for number, member in enumerate(members, 1):
        reporter.what = f"{what}, network {number} of {len(members)}"
        warm = number <= num_warm
        for row in fit_network(member, datasets, held_out, config=config, k=k, warm=warm, on_step=reporter.add):
            state.curve.append({"network": number, **row})
            loss = "" if row["loss"] is None else f"loss {row['loss']:.4f}, "
            reporter.log(f"epoch {row['epoch']}, {loss}validation {row['validation_ndcg']:.4f}")
        reporter.set_remaining(sum(max_lists[number:]))


def _finetune(state: _TrainingState, datasets: Sequence[RankingDataset]) -> None:
    """Finetunes each network on the newest weeks, the held-out one included."""
    config = state.inputs.config
    for number, member in enumerate(state.model.members, 1):
        loss = finetune_on_recent_weeks(member, datasets, config=config)
        state.curve.append({"network": number, "epoch": "final", "loss": loss, "validation_ndcg": None})
        state.progress(f"ranker, the newest {config.fit.newest_weeks} weeks: loss {loss:.4f}")
