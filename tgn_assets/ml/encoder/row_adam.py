"""Adam for tables of ids: a step moves the rows that have a gradient, and leaves the others as they are."""

from collections.abc import Iterable

import torch
from torch import Tensor

ROWS_PER_BLOCK = 2**16
"""Rows that are computed at a time, which bounds the memory of a step."""
BETAS = 0.9, 0.999
EPSILON = 1e-8


class RowAdam(torch.optim.Optimizer):
    """Adam (arXiv 1412.6980) whose second moment is one number a row: the mean of the row's squared gradients.

    A row moves only in steps in which its gradient is not all zero, and only then is the gradient of the L2 penalty
    `weight_decay` added to it. Adam would divide the penalty alone of any other row by its own size, and so take a
    whole step towards zero: ids of silent users and of new events would be erased. Gradients may be sparse.
    """

    def __init__(self, tables: Iterable[Tensor], *, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(tables, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # noqa: ARG002 (no closure is ever given)
        """Moves the rows that have a gradient."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is None:
                    continue
                state = self.state[table]
                if not state:
                    state |= {"steps": 0, "mean": torch.zeros_like(table), "square": table.new_zeros(len(table))}
                state["steps"] += 1
                for rows, gradient in _blocks(table.grad):
                    self._move(table, rows, gradient.add(table[rows], alpha=group["weight_decay"]), group["lr"])

    def _move(self, table: Tensor, rows: Tensor, gradient: Tensor, lr: float) -> None:
        state, (of_mean, of_square) = self.state[table], BETAS
        mean = state["mean"][rows].lerp_(gradient, 1 - of_mean)
        square = state["square"][rows].lerp_(gradient.square().mean(1), 1 - of_square)
        state["mean"][rows], state["square"][rows] = mean, square
        size = (square / (1 - of_square ** state["steps"])).sqrt_().add_(EPSILON)
        table.index_add_(0, rows, mean / size[:, None], alpha=-lr / (1 - of_mean ** state["steps"]))


def _blocks(gradient: Tensor) -> Iterable[tuple[Tensor, Tensor]]:
    """(rows [n], their gradients [n, d]) of the rows whose `gradient` is not all zero, some at a time."""
    if gradient.is_sparse:
        gradient = gradient.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
    else:
        rows, values = torch.arange(len(gradient), device=gradient.device), gradient
    for at, part in zip(rows.split(ROWS_PER_BLOCK), values.split(ROWS_PER_BLOCK), strict=True):
        moves = part.ne(0).any(1)
        yield at[moves], part[moves]
