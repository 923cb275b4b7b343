"""The linear link model: events regressed on the user's neighbourhood in the temporal graph, twice.

It is one hop of graph convolution without a nonlinearity. A user's vector is the sum of its events' input vectors, each
edge weighted by ln(1 + interactions), scaled down where the sum is long; an event has one vector as input and another
as output, whose dot product with the user's is what is expected of the pair. The vectors come in closed form from two
ridge regressions over all pairs of events, each then reduced to a low rank (reduced-rank regression, Izenman 1975):

- *next week*: the neighbourhood at the close of a past week, its edges halved every `half_life` weeks, explains what
  the user interacted with in the week after, beyond what everybody did.
- *co-occurrence*: each event of a neighbourhood, whenever it came, is explained by the others (EASE, arXiv 1905.03375).

For the place of such filters among graph networks see GF-CF (arXiv 2108.07567). A pair of events that few users share
weighs next to nothing here; a network, which sees a pair through its two vectors alone, has to learn that from little.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from tgn_assets.ml.arrays import IntArray
from tgn_assets.ml.config import LinearLinkConfig
from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.linalg.sparse import row_of, sums, top_n_per_row
from tgn_assets.ml.parallel import map_threaded

DEFAULTS = LinearLinkConfig()
USERS_PER_BLOCK = 2**14
"""Users whose vectors one thread computes at a time."""
OVERSAMPLING, POWER_ITERATIONS = 16, 4
"""Of the randomised singular value decomposition (arXiv 0909.4061)."""


@dataclass(frozen=True)
class LinkVectors:
    """What the regressions make of a history. The first `rank` columns are of the next-week regression, the others of
    co-occurrence; in each part the dot product of a user's and an event's vector is what is expected of the pair,
    larger for likelier ones and no probability. Zero where nothing is known."""

    user_idx: IntArray  # [U] warehouse indices, ascending
    users: Tensor  # [U, 2 * rank] float16
    event_idx: IntArray  # [E]
    events: Tensor  # [E, 2 * rank]


def link_vectors(history: InteractionHistory, config: LinearLinkConfig = DEFAULTS, *, seed: int = 0) -> LinkVectors:
    """The link vectors at the close of `history`, fitted to its weeks, each explained by the weeks before it."""
    past, kept = _PastByUser(history, config), _popular_events(history, config)
    regressions = ((config.half_life, _next_week_weights), (np.inf, _co_occurrence_weights))
    fitted = [
        (half_life, *_low_rank(weights(past, kept, seed), config.rank, seed)) for half_life, weights in regressions
    ]

    def of_users(user: IntArray) -> Tensor:
        now = np.full(len(user), history.week)
        parts = [past.neighbourhoods(user, now, decay)[:, kept] @ inputs for decay, inputs, _ in fitted]
        return torch.from_numpy(np.column_stack(parts)).half()

    blocks = np.split(np.arange(history.num_users), range(USERS_PER_BLOCK, history.num_users, USERS_PER_BLOCK))
    events = torch.zeros(history.num_events, 2 * config.rank)
    events[torch.from_numpy(kept)] = torch.cat([outputs for _, _, outputs in fitted], dim=1)
    return LinkVectors(history.user_idx, torch.cat([*map_threaded(of_users, blocks)]), history.event_idx, events)


class _PastByUser:
    """A history whose rows are found by user: every request is `user` [n] and a week number [n] for each."""

    def __init__(self, history: InteractionHistory, config: LinearLinkConfig) -> None:
        self.history, self.config = history, config
        self.by_user = history.by_user
        self.span = history.week + 2
        self.moment = history.user[self.by_user].astype(np.int64) * self.span + history.week_no[self.by_user]

    def neighbourhoods(self, user: IntArray, week: IntArray, half_life: float) -> sparse.csr_array:
        """[n, E] float32 edges as they were when the week closed."""
        h = self.history
        row, at = self._rows(user, np.zeros_like(week), week)
        weight = np.log1p(h.count[at]) * 0.5 ** ((week[row] - h.week_no[at]) / half_life)
        edges = sparse.csr_array((weight, (row, h.event[at])), shape=(len(user), h.num_events))
        edges.sum_duplicates()
        length = np.sqrt(sums(row_of(edges), edges.data**2, len(user)))
        edges.data /= np.sqrt(length)[row_of(edges)]
        return top_n_per_row(edges.astype(np.float32), self.config.max_neighbours)

    def interactions(self, user: IntArray, week: IntArray) -> sparse.csr_array:
        """[n, E] float32 events interacted with in the week: each row a vector of length one, or empty."""
        row, at = self._rows(user, week, week)
        size = np.bincount(row, minlength=len(user))
        weight = (1 / np.sqrt(size[row])).astype(np.float32)
        return sparse.csr_array((weight, (row, self.history.event[at])), shape=(len(user), self.history.num_events))

    def _rows(self, user: IntArray, first: IntArray, last: IntArray) -> tuple[IntArray, IntArray]:
        """(index in `user`, row of the history) of what each user did in the weeks `first` to `last`."""
        low = np.searchsorted(self.moment, user * self.span + first)
        size = np.searchsorted(self.moment, user * self.span + last, side="right") - low
        row = np.repeat(np.arange(len(user)), size)
        return row, self.by_user[np.arange(len(row)) - np.repeat(np.cumsum(size) - size - low, size)]


def _popular_events(history: InteractionHistory, config: LinearLinkConfig) -> IntArray:
    """Positions, ascending, of the `max_events` most popular events."""
    weight = 0.5 ** ((history.week - history.week_no) / config.event_choice_half_life)
    popularity = np.bincount(history.event, weight, history.num_events)
    return np.sort(np.lexsort((history.event_order, -popularity))[: config.max_events])


def _next_week_weights(past: _PastByUser, kept: IntArray, seed: int) -> Tensor:
    """[n, n] what each of the n events `kept` in a neighbourhood says about each of them in the week after."""
    user, week = _training_rows(past.history, past.config, seed)
    before = past.neighbourhoods(user, week, past.config.half_life)
    known = np.diff(before.indptr) > 0
    user, week, before = user[known], week[known], before[known][:, kept]
    after = past.interactions(user, week + 1)[:, kept]
    # What everybody did that week says nothing about one user: the mean of its week is subtracted from each row.
    weeks, week_index = np.unique(week, return_inverse=True)
    entries = np.ones(len(week), np.float32), (week_index, np.arange(len(week)))
    of_week = sparse.csr_array(entries, (len(weeks), len(week)))
    usual = (of_week @ after).toarray() / np.bincount(week_index)[:, None]
    beyond = torch.from_numpy((before.T @ after).toarray())
    beyond -= torch.from_numpy((of_week @ before).toarray()).T @ torch.from_numpy(usual.astype(np.float32))
    return torch.cholesky_solve(beyond, _ridge_factor(before, past.config.next_week_ridge))


def _co_occurrence_weights(past: _PastByUser, kept: IntArray, seed: int) -> Tensor:
    """[n, n] what each of the n events `kept` in a neighbourhood says about each other one; nothing about itself."""
    user, most = np.arange(past.history.num_users), past.config.max_rows
    if len(user) > most:
        user = np.sort(np.random.default_rng(seed).choice(user, most, replace=False))
    edges = past.neighbourhoods(user, np.full(len(user), past.history.week), np.inf)[:, kept]
    inverse = torch.cholesky_inverse(_ridge_factor(edges, past.config.co_occurrence_ridge))
    weights = -inverse / inverse.diagonal()
    weights.diagonal().zero_()
    return weights


def _ridge_factor(rows: sparse.csr_array, ridge: float) -> Tensor:
    moments = torch.from_numpy((rows.T @ rows).toarray())
    moments.diagonal().add_(ridge)
    return torch.linalg.cholesky(moments)


def _low_rank(weights: Tensor, rank: int, seed: int) -> tuple[NDArray[np.float32], Tensor]:
    """[n, rank] twice, whose products are nearest to `weights` [n, n]: the events' input and output vectors."""
    size = len(weights)
    inputs, outputs = torch.zeros(2, size, rank)
    rank = min(rank, size)
    if not size:
        return inputs.numpy(), outputs
    # As torch.svd_lowrank does it, but with random numbers of its own: an encoder draws from torch's at the same time.
    drawn = torch.Generator().manual_seed(seed)
    basis = torch.randn(size, min(rank + OVERSAMPLING, size), generator=drawn)
    basis = torch.linalg.qr(weights @ basis).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(weights.T @ basis).Q
        basis = torch.linalg.qr(weights @ basis).Q
    left, scale, right = torch.linalg.svd(basis.T @ weights, full_matrices=False)
    share = scale[:rank].sqrt()
    inputs[:, :rank], outputs[:, :rank] = (basis @ left)[:, :rank] * share, right.T[:, :rank] * share
    return inputs.numpy(), outputs


def _training_rows(history: InteractionHistory, config: LinearLinkConfig, seed: int) -> tuple[IntArray, IntArray]:
    """(user, week number) of each row of the next-week regression: users active in the week after; newest first."""
    users, weeks = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    rng, left = np.random.default_rng(seed), config.max_rows
    oldest = max(int(history.week_no.min(initial=history.week)), history.week - config.max_weeks)
    for week in range(history.week - 1, oldest - 1, -1):
        active = np.unique(history.in_week(week + 1)[0])
        if len(active) > config.max_rows_per_week:
            active = np.sort(rng.choice(active, config.max_rows_per_week, replace=False))
        users.append(active)
        weeks.append(np.full(len(active), week))
        left -= len(active)
        if left <= 0:
            break
    return np.concatenate(users), np.concatenate(weeks)
