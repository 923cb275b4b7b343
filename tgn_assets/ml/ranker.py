"""Phase 2: the Transformer over weekly embeddings and the scoring head, trained to rank the week after each origin.

An origin is a closed week; what the ranker sees of it was known at its close (its history, and the embeddings that the
encoder of that week gave), and what it learns to predict is the distinct events each user touched in the week after.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch_geometric.utils import softmax

from tgn_assets.ml.baselines import all_baselines, popular
from tgn_assets.ml.checkpoint import finite, load_artifact, save_artifact
from tgn_assets.ml.config import RankerConfig
from tgn_assets.ml.embeddings import NodeEmbeddings
from tgn_assets.ml.frames import Bank, Frame, Origin, blocks_of, next_week
from tgn_assets.ml.gate import Gate, choose_sources, ndcg_of, segment_of, untested_gate
from tgn_assets.ml.history import History
from tgn_assets.ml.model import UserInteractionPredictor
from tgn_assets.ml.recall import PAIR_FEATURES
from tgn_assets.ml.schema import OURS, K
from tgn_assets.ml.topk import grouped_top_k
from tgn_assets.ml.weeks import week_key, week_number

Progress = Callable[[str], None]
USERS_PER_STEP = 256
USERS_PER_ORIGIN = 4096
"""Users learnt from per origin; a week with more of them is sampled, seeded, so that the cost of a week is bounded."""
USERS_PER_BLOCK = 2048
WEIGHT_DECAY = 1e-3


@dataclass(frozen=True)
class RankerCheckpoint:
    """The ranker as of the close of `week`.

    `curve` has a row per epoch (loss, validation_ndcg), `gate` says whose list each segment of users is published
    from, `validation` holds numbers about the newest closed week. `trained` is False where history was too short to
    learn from: then every list comes from a baseline, and nothing reads the weights.
    """

    week: str
    config: RankerConfig
    trained: bool
    state: dict[str, Tensor]
    curve: list[dict[str, Any]]
    gate: Gate
    validation: dict[str, float]

    def save(self, directory: Path) -> None:
        """Writes the checkpoint to `directory`, replacing what is there."""
        meta = {
            "week": self.week,
            "config": self.config.model_dump(),
            "trained": self.trained,
            "curve": self.curve,
            "gate": self.gate.to_meta(),
            "validation": self.validation,
        }
        save_artifact(directory, self.state, meta)

    @classmethod
    def load(cls, directory: Path) -> "RankerCheckpoint":
        """Reads what `save` wrote; ArtifactError if it is missing or damaged."""
        state, meta = load_artifact(directory)
        config, gate = RankerConfig(**meta["config"]), Gate.from_meta(meta["gate"])
        return cls(meta["week"], config, meta["trained"], state, meta["curve"], gate, meta["validation"])


def train_ranker(
    history: History,
    bank: Bank,
    week: str,
    config: RankerConfig,
    progress: Progress = lambda _: None,
) -> RankerCheckpoint:
    """Trains the ranker as of the close of `week` on the weeks after the last `config.origins` origins.

    Epochs are chosen, and the gate is set, on the newest closed week, which is held out until then. `history` must end
    with `week` and `bank` hold no later week: ValueError.
    """
    now = week_number(week)
    if history.week != now or any(key > week for key in bank):
        raise ValueError(f"the ranker of week {week} was handed data of another week")
    oldest = min((week_number(key) for key in bank), default=now)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed * 1_000_003 + now)
        frames = []
        for week_no in range(max(oldest, now - 1 - config.origins), now - 1):
            frame = _training_frame(history, Origin(history.until(week_no), bank, config), config.seed)
            frames += [frame] if frame is not None else []
            progress(f"phase 2, origin {week_key(week_no)}: {0 if frame is None else len(frame.truth_size)} users")
        newest = Origin(history.until(now - 1), bank, config)
        held_out = _training_frame(history, newest, config.seed)
        model = _new_model(config, newest.width)
        curve: list[dict[str, Any]] = []
        gate, validation = untested_gate(), dict[str, float]()
        if held_out is not None:
            for row in _fit(model, frames, held_out, config) if frames else ():
                curve.append(row)
                progress(
                    f"phase 2, epoch {row['epoch']}: loss {row['loss']:.4f}, validation {row['validation_ndcg']:.4f}"
                )
            gate, validation = _gate(model if frames else None, history, newest, held_out, config.seed)
        state = {name: value.cpu() for name, value in model.state_dict().items()}
    return RankerCheckpoint(week, config, bool(curve), state, curve, gate, validation)


def temporal_embeddings(ranker: RankerCheckpoint, history: History, bank: Bank) -> NodeEmbeddings:
    """User and event embeddings of phase 2 as of `ranker.week`, for all nodes of `history`, in blocks of users."""
    model, origin = load_model(ranker), Origin(history, bank, ranker.config)
    with torch.no_grad():
        users = [
            model.get_temporal_embeddings(*origin.sequence(block))
            for block in blocks_of(np.arange(history.num_users), USERS_PER_BLOCK)
        ]
        events = model.event_embeddings(origin.event_vectors())
    empty = torch.zeros(0, ranker.config.dim)
    return NodeEmbeddings(
        ranker.week,
        torch.as_tensor(history.user_idx),
        torch.cat([empty, *users]),
        torch.as_tensor(history.event_idx),
        events,
    )


def load_model(ranker: RankerCheckpoint) -> UserInteractionPredictor:
    """The network of a checkpoint, ready to score."""
    model = _new_model(ranker.config, ranker.state["project_event.weight"].shape[1])
    model.load_state_dict(ranker.state)
    return model.eval()


def _new_model(config: RankerConfig, width: int) -> UserInteractionPredictor:
    return UserInteractionPredictor(
        width, len(PAIR_FEATURES), config.dim, config.heads, config.layers, config.sequence, config.dropout
    )


def _training_frame(history: History, origin: Origin, seed: int) -> Frame | None:
    """The frame of the users that were active in the week after the origin and known at it; None if there are none."""
    truth = next_week(history, origin.past)
    users = np.flatnonzero(truth[2])
    if len(users) > USERS_PER_ORIGIN:
        users = np.sort(np.random.default_rng(seed).choice(users, USERS_PER_ORIGIN, replace=False))
    return origin.frame(users, truth) if len(users) else None


def _fit(
    model: UserInteractionPredictor, frames: list[Frame], held_out: Frame, config: RankerConfig
) -> Iterator[dict[str, Any]]:
    """Trains with early stopping on `held_out`, leaves the best weights in `model`, and yields a row per epoch."""
    model.normalise(torch.from_numpy(np.concatenate([frame.candidates.features for frame in frames])))
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.learning_rate, weight_decay=WEIGHT_DECAY)
    best, best_state, waited = -1.0, deepcopy(model.state_dict()), 0
    for epoch in range(config.epochs):
        loss = _pass(model, frames, optimizer)
        quality = float(ndcg_of(_hits(held_out, _top(model, held_out)), held_out.truth_size).mean())
        yield {"epoch": epoch, "loss": loss, "validation_ndcg": quality}
        if quality > best:
            best, best_state, waited = quality, deepcopy(model.state_dict()), 0
        else:
            waited += 1
            if waited >= config.patience:
                break
    model.load_state_dict(best_state)


def _pass(model: UserInteractionPredictor, frames: list[Frame], optimizer: torch.optim.Optimizer) -> float:
    """One pass over all users of all frames in random order; the mean loss."""
    model.train()
    steps = [(frame, rows) for frame in frames for rows in torch.randperm(len(frame.truth_size)).split(USERS_PER_STEP)]
    total = 0.0
    for at in torch.randperm(len(steps)).tolist():
        loss = _loss(model, steps[at][0], steps[at][1].numpy())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return finite(total / max(len(steps), 1), "trained_ranker")


def _loss(model: UserInteractionPredictor, frame: Frame, rows: np.ndarray) -> Tensor:
    """List-wise softmax (ListNet, top one): each user's touched candidates share a mass of one."""
    pairs, place = frame.pairs_of(rows)
    scores = _scores(model, frame, rows, pairs, place)
    group, label = torch.as_tensor(place), torch.as_tensor(frame.label[pairs], dtype=torch.float32)
    touched = torch.zeros(len(rows)).index_add_(0, group, label)
    share = label / touched.clamp(min=1)[group]
    log_probability = torch.log(softmax(scores, group, num_nodes=len(rows)) + 1e-12)
    return -(share * log_probability).sum() / (touched > 0).sum().clamp(min=1)


def _scores(
    model: UserInteractionPredictor, frame: Frame, rows: np.ndarray, pairs: np.ndarray, place: np.ndarray
) -> Tensor:
    users = model.get_temporal_embeddings(frame.sequence[rows], frame.known[rows])
    events, of_pair = np.unique(frame.candidates.event[pairs], return_inverse=True)
    vectors = model.event_embeddings(frame.event_vectors[events])
    return model(users[place], vectors[of_pair], torch.from_numpy(frame.candidates.features[pairs]))


@torch.no_grad()
def _top(model: UserInteractionPredictor, frame: Frame) -> np.ndarray:
    """[n, K] positions of each user's best candidate pairs."""
    model.eval()
    scores = []
    for rows in blocks_of(np.arange(len(frame.truth_size)), USERS_PER_BLOCK):
        pairs, place = frame.pairs_of(rows)
        scores.append(_scores(model, frame, rows, pairs, place).numpy())
    return grouped_top_k(frame.candidates.row, np.concatenate(scores), frame.candidates.event, len(frame.truth_size), K)


def _hits(frame: Frame, top: np.ndarray) -> np.ndarray:
    """[n, K] bool: the user touched the event at that rank."""
    return np.append(frame.label, False)[top]


def _gate(
    model: UserInteractionPredictor | None, history: History, origin: Origin, held_out: Frame, seed: int
) -> tuple[Gate, dict[str, float]]:
    """Who serves which segment, from the newest closed week; and each source's NDCG@5 on it."""
    users, past = held_out.candidates.users, origin.past
    user, event, _ = next_week(history, past)
    touched = user * past.num_events + event
    hits = {
        name: np.isin(users[:, None] * past.num_events + lists, touched) & (lists >= 0)
        for name, lists in all_baselines(past, users).items()
    }
    if model is not None:
        hits[OURS] = _hits(held_out, _top(model, held_out))
    ndcg = {name: ndcg_of(hit, held_out.truth_size) for name, hit in hits.items()}
    gate = choose_sources(segment_of(past, users), ndcg, hits, _new_user_hits(history, past), seed)
    return gate, {f"ndcg_{name}": float(values.mean()) for name, values in ndcg.items()}


def _new_user_hits(history: History, past: History) -> np.ndarray:
    """[m, K] bool: what the popular list would have hit for the users first seen in the week after `past`."""
    user, event = history.in_week(past.week + 1)
    new = history.first_week_of_user[user] == past.week + 1
    lists = popular(past)
    idx = np.where(lists >= 0, past.event_idx[lists], -1)
    users, row = np.unique(user[new], return_inverse=True)
    touched = row * (history.event_idx.max(initial=0) + 2) + history.event_idx[event[new]]
    return np.isin(np.arange(len(users))[:, None] * (history.event_idx.max(initial=0) + 2) + idx, touched) & (idx >= 0)
