"""Phase 2: the Transformer over weekly embeddings and the pair's evidence, trained to rank the week after each origin.

Two rankers learn from the same weeks, the network and LambdaRank's trees; their blend is the ranker. An origin is a
closed week; what the ranker sees of it was known at its close (its history, and the embeddings that the encoder of that
week gave), and what it learns to predict is the distinct events each user touched in the week after.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tgn_assets.ml.baselines import BASELINES, all_baselines
from tgn_assets.ml.blend import blended, shares
from tgn_assets.ml.boosting import fit_trees, forest, tree_scores
from tgn_assets.ml.calibration import Calibration, Logistic, calibrate, fit_activity
from tgn_assets.ml.checkpoint import load_artifact, save_artifact
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.embeddings import NodeEmbeddings
from tgn_assets.ml.frames import Bank, Frame, Origin, blocks_of, next_week
from tgn_assets.ml.gate import SEGMENTS, Gate, choose_sources, ndcg_of, segment_of, untested_gate
from tgn_assets.ml.history import History
from tgn_assets.ml.lessons import Lesson, LessonStore, lesson_of, names, oldest_origin, sampled
from tgn_assets.ml.listwise import catch_up, fit_network, hits_of, network_scores
from tgn_assets.ml.model import UserInteractionPredictor
from tgn_assets.ml.policy import OPEN, Rules
from tgn_assets.ml.recall import PAIR_FEATURES
from tgn_assets.ml.schema import OURS, K
from tgn_assets.ml.topk import grouped_top_k
from tgn_assets.ml.weeks import week_key, week_number

Progress = Callable[[str], None]
USERS_PER_BLOCK = 2048
CALIBRATION_USERS = 2048
"""Users whose lists the scores are calibrated on: three numbers are fitted to five times as many pairs or more."""
NEWEST_WEEKS = 3
"""Weeks that the network passes over once more at the end, the one that was held out among them."""


@dataclass(frozen=True)
class RankerCheckpoint:
    """The ranker as of the close of `week`.

    `curve` has a row per epoch (loss, validation_ndcg), `gate` says whose list each segment of users is published
    from, `validation` holds numbers about the newest closed week. `trained` is False where history was too short to
    learn from: then every list comes from a baseline, and nothing reads the weights. `trees` is LightGBM's text;
    `calibration` turns the blend's shares into probabilities. `k` is the length of the lists that it was tried with.
    """

    week: str
    config: RankerConfig
    trained: bool
    state: dict[str, Tensor]
    trees: str
    curve: list[dict[str, Any]]
    gate: Gate
    calibration: Calibration | None
    validation: dict[str, float]
    k: int = K

    def save(self, directory: Path) -> None:
        """Writes the checkpoint to `directory`, replacing what is there."""
        save_artifact(directory, self.state, self.meta())

    def meta(self) -> dict[str, Any]:
        """All of it but the weights, for JSON."""
        return {
            "week": self.week,
            "config": self.config.model_dump(),
            "trained": self.trained,
            "trees": self.trees,
            "curve": self.curve,
            "gate": self.gate.to_meta(),
            "calibration": self.calibration.to_meta() if self.calibration else None,
            "validation": self.validation,
            "k": self.k,
        }

    @classmethod
    def load(cls, directory: Path) -> "RankerCheckpoint":
        """Reads what `save` wrote; ArtifactError if it is missing or damaged."""
        state, meta = load_artifact(directory)
        return cls(
            week=meta["week"],
            config=RankerConfig(**meta["config"]),
            trained=meta["trained"],
            state=state,
            trees=meta["trees"],
            curve=meta["curve"],
            gate=Gate.from_meta(meta["gate"]),
            calibration=Calibration.from_meta(meta["calibration"]) if meta["calibration"] else None,
            validation=meta["validation"],
            k=meta.get("k", K),  # checkpoints of before lists had a length of their own
        )


def train_ranker(
    history: History,
    bank: Bank,
    week: str,
    config: RankerConfig,
    device: str = "cpu",
    progress: Progress = lambda _: None,
    rules: Rules = OPEN,
    store: LessonStore | None = None,
) -> RankerCheckpoint:
    """Trains the ranker as of the close of `week` on the weeks after the last `config.origins` origins.

    Epochs are chosen, and gate and calibration set, on the newest closed week, which is held out until then; that
    being done, it is learnt from like the rest. In every week only what `rules` allowed then is ranked, in lists of
    their length. Lessons of earlier weeks are taken from `store`, and kept there. `history` must end with `week` and
    `bank` hold no later week: ValueError.
    """
    now, store = week_number(week), store or LessonStore()
    if history.week != now or any(key > week for key in bank):
        raise ValueError(f"the ranker of week {week} was handed data of another week")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000_003 + now)
        origins = [*range(oldest_origin(bank, now, config), now - 1), now - 1]
        made_from = names(history, origins, bank, config, device, rules)
        newest = Origin(history.until(now - 1), bank, config, device, rules)

        def learn(at: int) -> Lesson:
            origin = newest if at == now - 1 else Origin(history.until(at), bank, config, device, rules)
            return lesson_of(history, origin, config.seed)

        lessons = []
        for at in origins:
            lessons.append(store.get(week_key(at), made_from[at], partial(learn, at)))
            frame = lessons[-1].frame
            progress(f"phase 2, origin {week_key(at)}: {0 if frame is None else len(frame.truth_size)} users")
        store.forget_before(week_key(origins[0]))
        *past, newest_lesson = lessons
        frames, held_out = [lesson.frame for lesson in past if lesson.frame is not None], newest_lesson.frame
        model, trees = _new_model(config, newest.width).to(device), ""
        curve: list[dict[str, Any]] = []
        gate, calibration, validation = untested_gate(rules.k), None, dict[str, float]()
        if held_out is not None:
            for row in fit_network(model, frames, held_out, config, rules.k) if frames else ():
                curve.append(row)
                progress(
                    f"phase 2, epoch {row['epoch']}: loss {row['loss']:.4f}, validation {row['validation_ndcg']:.4f}"
                )
            trees = fit_trees(frames, config.seed)
            hits = _hits(model if frames else None, trees, history, newest, held_out)
            gate, validation = _gate(hits, history, newest.past, held_out, config.seed)
            if frames:
                came_back = fit_activity(
                    np.concatenate([lesson.user_features for lesson in past]),
                    np.concatenate([lesson.active for lesson in past]),
                )
                calibration = _calibration(came_back, model, trees, history, newest, config.seed)
                catch_up(model, [*frames, held_out][-NEWEST_WEEKS:], config)
                trees = fit_trees([*frames[1:], held_out], config.seed)
        state = {name: value.cpu() for name, value in model.state_dict().items()}
    return RankerCheckpoint(week, config, bool(curve), state, trees, curve, gate, calibration, validation, rules.k)


def temporal_embeddings(ranker: RankerCheckpoint, history: History, bank: Bank, device: str = "cpu") -> NodeEmbeddings:
    """User and event embeddings of phase 2 as of the week of `history`, for all its nodes, in blocks of users."""
    model, origin = load_model(ranker, device), Origin(history, bank, ranker.config)
    with torch.no_grad():
        users = [
            model.get_temporal_embeddings(*(x.to(device) for x in origin.sequence(block))).cpu()
            for block in blocks_of(np.arange(history.num_users), USERS_PER_BLOCK)
        ]
        events = model.event_embeddings(origin.event_vectors().to(device)).cpu()
    empty = torch.zeros(0, ranker.config.dim)
    return NodeEmbeddings(
        origin.week,
        torch.as_tensor(history.user_idx),
        torch.cat([empty, *users]),
        torch.as_tensor(history.event_idx),
        events,
    )


def load_model(ranker: RankerCheckpoint, device: str = "cpu") -> UserInteractionPredictor:
    """The network of a checkpoint, ready to score on `device`."""
    model = _new_model(ranker.config, ranker.state["project_event.weight"].shape[1])
    model.load_state_dict(ranker.state)
    return model.to(device).eval()


def _new_model(config: RankerConfig, width: int) -> UserInteractionPredictor:
    return UserInteractionPredictor(
        width, len(PAIR_FEATURES), config.dim, config.heads, config.layers, config.sequence, config.dropout
    )


def _hits(
    model: UserInteractionPredictor | None, trees: str, history: History, origin: Origin, held_out: Frame
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
        network, grown = network_scores(model, held_out), tree_scores(forest(trees), held_out.candidates.features)
        hits["network"], hits["trees"] = (hits_of(held_out, score, rules.k) for score in (network, grown))
        hits[OURS] = hits_of(held_out, blended(held_out.candidates.row, network, grown), rules.k)
    return hits


def _gate(
    hits: dict[str, np.ndarray], history: History, past: History, held_out: Frame, seed: int
) -> tuple[Gate, dict[str, float]]:
    """Who serves which segment, from the newest closed week; and each source's NDCG@k on it."""
    ndcg = {name: ndcg_of(hit, held_out.truth_size) for name, hit in hits.items()}
    published = {name: values for name, values in ndcg.items() if name in (OURS, *BASELINES)}
    everyone = segment_of(past, np.arange(past.num_users))
    active = np.flatnonzero(next_week(history, past)[2])
    came_back = np.bincount(everyone[active], minlength=len(SEGMENTS)) / np.maximum(
        np.bincount(everyone, minlength=len(SEGMENTS)), 1
    )
    gate = choose_sources(everyone[held_out.candidates.users], published, hits, came_back, seed)
    return gate, {f"ndcg_{name}": float(values.mean()) for name, values in ndcg.items()}


def _calibration(
    activity: Logistic, model: UserInteractionPredictor, trees: str, history: History, origin: Origin, seed: int
) -> Calibration:
    """From what the published ranks of the newest closed week came to, among all users, active or not."""
    users = sampled(np.arange(origin.past.num_users), seed, CALIBRATION_USERS)
    frame = origin.frame(users, next_week(history, origin.past))
    row, event = frame.candidates.row, frame.candidates.event
    score = blended(row, network_scores(model, frame), tree_scores(forest(trees), frame.candidates.features))
    top = grouped_top_k(row, score, event, len(users), origin.rules.k)
    top = top[top >= 0]
    user_features = origin.recall.evidence.user_features[users[row[top]]]
    return calibrate(activity, shares(row, score)[top], user_features, frame.label[top])
