"""Dot products of pairs of vectors."""

from torch import Tensor

PRODUCTS_PER_PAIR = 32
"""Products of all users with all events that cost less than to gather both vectors of one pair."""


def pair_products(users: Tensor, events: Tensor, row: Tensor, column: Tensor) -> Tensor:
    """[p] dot products of the vectors `row` [p] of `users` [n, d] with those `column` [p] of `events` [m, d].

    Where pairs are not few among all that there could be, all products are made at once and those of the pairs taken:
    far fewer bytes are moved, there and for the gradient.
    """
    # Not users[row]: its gradient would be added up by several threads in any order, not the same bytes each time.
    if len(users) * len(events) <= PRODUCTS_PER_PAIR * len(row):
        return (users @ events.T).flatten().index_select(0, row * len(events) + column)
    return (users.index_select(0, row) * events.index_select(0, column)).sum(-1)
