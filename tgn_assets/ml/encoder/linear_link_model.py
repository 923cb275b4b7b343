"""The linear part of phase 1: events regressed on the user's neighbourhood in the temporal graph, twice.

It is one hop of graph convolution without a nonlinearity. A user is the sum of what its events stand for, an edge
weighing ln(1 + interactions), and the sum is scaled down where there is much of it; an event has one vector to be
summed and another to be met, whose dot product with the user is what is expected of the pair. The vectors come in
closed form from two ridge regressions over all pairs of events, each then reduced to a low rank (reduced-rank
regression, Izenman 1975):

- *follows*: the neighbourhood as it was when a past week closed, its edges halved every `HALF_LIFE` weeks, explains
  what the user touched in the week after, beyond what everybody did.
- *together*: each event of a neighbourhood, whenever it came, is explained by the others (EASE, arXiv 1905.03375).

For what such filters are among graph networks see GF-CF (arXiv 2108.07567). A pair of events that few users share
weighs next to nothing here; a network, which sees a pair through its two vectors alone, has to learn that from little.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from tgn_assets.ml.data.interactions import InteractionHistory
from tgn_assets.ml.linalg.sparse import row_of, sums, top_n_per_row

RANK = 64
FOLLOWS_RIDGE, TOGETHER_RIDGE = 60.0, 30.0
HALF_LIFE = 8.0
EVENTS = 2048
"""Events that are met, and summed: the most touched lately, halved every `STEADY` weeks. Costs grow with the cube."""
STEADY = 4.0
ROWS, ROWS_PER_WEEK, WEEKS = 50_000, 4096, 104
"""Users learnt from, counted once a week: at most so many, of a week, and from so many of the newest weeks."""
NEIGHBOURS = 200
"""Edges of a user: a heavier user's lightest ones would make the square explode."""
OVERSAMPLING, POWER_ITERATIONS = 16, 4
"""Of the randomised singular value decomposition (arXiv 0909.4061)."""


@dataclass(frozen=True)
class LinkVectors:
    """What the regressions make of a history. The first RANK columns are of *follows*, the others of *together*; in
    each part the dot product of a user's and an event's vector is what is expected of the pair, larger for likelier
    ones and no probability. Zero where nothing is known."""

    user_idx: np.ndarray  # [U] warehouse indices, ascending
    users: Tensor  # [U, 2 * RANK]
    event_idx: np.ndarray  # [E]
    events: Tensor  # [E, 2 * RANK]


def link_vectors(history: InteractionHistory, seed: int = 0) -> LinkVectors:
    """Learns from the weeks of `history`, each explained by the weeks before it, and stands at its close."""
    past, kept = _Past(history), _steady_events(history)
    everyone = np.arange(history.num_users)
    now = np.full(len(everyone), history.week)
    users, events = [], []
    for half_life, weights in ((HALF_LIFE, _follows), (np.inf, _together)):
        summed, met = _reduced(weights(past, kept, seed), seed)
        users.append(torch.from_numpy(past.neighbourhoods(everyone, now, half_life)[:, kept] @ summed))
        events.append(torch.zeros(history.num_events, RANK).index_copy_(0, torch.from_numpy(kept), met))
    return LinkVectors(history.user_idx, torch.cat(users, dim=1), history.event_idx, torch.cat(events, dim=1))


class _Past:
    """A history whose rows are found by user: what is asked for comes as `user` [n] and a week number [n] for each."""

    def __init__(self, history: InteractionHistory) -> None:
        self.history = history
        self.by_user = np.argsort(history.user, kind="stable")  # rows are sorted by week: those of a user stay so
        self.span = history.week + 2
        self.moment = history.user[self.by_user] * self.span + history.week_no[self.by_user]

    def neighbourhoods(self, user: np.ndarray, week: np.ndarray, half_life: float) -> sparse.csr_array:
        """[n, E] float32 edges as they were when the week closed."""
        h = self.history
        row, at = self._rows(user, np.zeros_like(week), week)
        weight = np.log1p(h.count[at]) * 0.5 ** ((week[row] - h.week_no[at]) / half_life)
        edges = sparse.csr_array((weight, (row, h.event[at])), shape=(len(user), h.num_events))
        edges.sum_duplicates()
        length = np.sqrt(sums(row_of(edges), edges.data**2, len(user)))
        edges.data /= np.sqrt(length)[row_of(edges)]
        return top_n_per_row(edges.astype(np.float32), NEIGHBOURS)

    def touched(self, user: np.ndarray, week: np.ndarray) -> sparse.csr_array:
        """[n, E] float32 what was touched in the week: each row a vector of length one, or empty."""
        row, at = self._rows(user, week, week)
        size = np.bincount(row, minlength=len(user))
        weight = (1 / np.sqrt(size[row])).astype(np.float32)
        return sparse.csr_array((weight, (row, self.history.event[at])), shape=(len(user), self.history.num_events))

    def _rows(self, user: np.ndarray, first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(place in `user`, row of the history) of what each user did in the weeks `first` to `last`."""
        low = np.searchsorted(self.moment, user * self.span + first)
        size = np.searchsorted(self.moment, user * self.span + last, side="right") - low
        row = np.repeat(np.arange(len(user)), size)
        return row, self.by_user[np.arange(len(row)) - np.repeat(np.cumsum(size) - size - low, size)]


def _steady_events(history: InteractionHistory) -> np.ndarray:
    """Positions, ascending."""
    weight = 0.5 ** ((history.week - history.week_no) / STEADY)
    touched = np.bincount(history.event, weight, history.num_events)
    return np.sort(np.lexsort((history.event_order, -touched))[:EVENTS])


def _follows(past: _Past, kept: np.ndarray, seed: int) -> Tensor:
    """[n, n] what having one of the n events `kept` says about meeting another in the week after."""
    user, week = _taught_by(past.history, seed)
    before = past.neighbourhoods(user, week, HALF_LIFE)
    known = np.diff(before.indptr) > 0
    user, week, before = user[known], week[known], before[known][:, kept]
    after = past.touched(user, week + 1)[:, kept]
    # What everybody did that week says nothing about one user: each row is held against the mean of its week.
    weeks, place = np.unique(week, return_inverse=True)
    one = np.ones(len(place), np.float32)
    of_week = sparse.csr_array((one, (place, np.arange(len(place)))), (len(weeks), len(place)))
    usual = (of_week @ after).toarray() / np.bincount(place)[:, None]
    beyond = torch.from_numpy((before.T @ after).toarray())
    beyond -= torch.from_numpy((of_week @ before).toarray()).T @ torch.from_numpy(usual.astype(np.float32))
    return torch.cholesky_solve(beyond, _ridge_factor(before, FOLLOWS_RIDGE))


def _together(past: _Past, kept: np.ndarray, seed: int) -> Tensor:
    """[n, n] what having one of the n events `kept` says about having another; nothing about itself."""
    user = np.arange(past.history.num_users)
    if len(user) > ROWS:
        user = np.sort(np.random.default_rng(seed).choice(user, ROWS, replace=False))
    edges = past.neighbourhoods(user, np.full(len(user), past.history.week), np.inf)[:, kept]
    inverse = torch.cholesky_inverse(_ridge_factor(edges, TOGETHER_RIDGE))
    weights = -inverse / inverse.diagonal()
    weights.diagonal().zero_()
    return weights


def _ridge_factor(rows: sparse.csr_array, ridge: float) -> Tensor:
    moments = torch.from_numpy((rows.T @ rows).toarray())
    moments.diagonal().add_(ridge)
    return torch.linalg.cholesky(moments)


def _reduced(weights: Tensor, seed: int) -> tuple[np.ndarray, Tensor]:
    """[n, RANK] twice, whose products are nearest to `weights` [n, n]: what is summed, and what is met."""
    size = len(weights)
    summed, met = torch.zeros(size, RANK), torch.zeros(size, RANK)
    rank = min(RANK, size)
    if not size:
        return summed.numpy(), met
    # As torch.svd_lowrank does it, but with random numbers of its own: an encoder draws from torch's at the same time.
    drawn = torch.Generator().manual_seed(seed)
    basis = torch.randn(size, min(rank + OVERSAMPLING, size), generator=drawn)
    basis = torch.linalg.qr(weights @ basis).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(weights.T @ basis).Q
        basis = torch.linalg.qr(weights @ basis).Q
    left, scale, right = torch.linalg.svd(basis.T @ weights, full_matrices=False)
    left, right = basis @ left, right.T
    share = scale[:rank].sqrt()
    summed[:, :rank], met[:, :rank] = left[:, :rank] * share, right[:, :rank] * share
    return summed.numpy(), met


def _taught_by(history: InteractionHistory, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(user, week number) of who is learnt from, active in the week after; the newest weeks first."""
    users, weeks = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    rng, left = np.random.default_rng(seed), ROWS
    oldest = max(int(history.week_no.min(initial=history.week)), history.week - WEEKS)
    for week in range(history.week - 1, oldest - 1, -1):
        active = np.unique(history.in_week(week + 1)[0])
        if len(active) > ROWS_PER_WEEK:
            active = np.sort(rng.choice(active, ROWS_PER_WEEK, replace=False))
        users.append(active)
        weeks.append(np.full(len(active), week))
        left -= len(active)
        if left <= 0:
            break
    return np.concatenate(users), np.concatenate(weeks)
