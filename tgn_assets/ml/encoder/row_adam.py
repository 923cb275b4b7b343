"""Adam for tables of ids: a step moves the rows that have a gradient, and leaves the others as they are."""

from collections.abc import Iterable

import torch
from torch import Tensor

ADAM_BLOCK = 2**11
"""Rows that are computed at a time: they stay in the processor's cache, and bound the memory of a step."""
BETAS = 0.9, 0.999
EPSILON = 1e-8


class RowAdam(torch.optim.Optimizer):
    """Adam (arXiv 1412.6980) whose second moment is one number a row: the mean of the row's squared gradients.

    A row moves only in steps in which its gradient is not zero, and only then is the gradient of the L2 penalty
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
                options = state["steps"], group["lr"], group["weight_decay"]
                parts = table, state["mean"], state["square"]
                if not table.grad.is_sparse:
                    _move(parts, table.grad, *options)
                    continue
                gradient = table.grad.coalesce()
                rows = gradient.indices()[0]
                of_rows = table[rows], state["mean"][rows], state["square"][rows]
                _move(of_rows, gradient.values(), *options)
                for part, moved in zip(parts, of_rows, strict=True):
                    part[rows] = moved


def _move(parts: tuple[Tensor, Tensor, Tensor], gradient: Tensor, step: int, lr: float, weight_decay: float) -> None:
    """Moves rows and both of their moments, `parts`, in place.

    All weights of a row without gradient are zero, which changes none of its bytes.
    """
    of_mean, of_square = BETAS
    for row, mean, square, slope in zip(*(part.split(ADAM_BLOCK) for part in (*parts, gradient)), strict=True):
        moves = slope.square().sum(1).ne(0).to(slope.dtype)
        slope = slope.add(row, alpha=weight_decay)
        mean.lerp_(slope, (moves * (1 - of_mean))[:, None])
        square.lerp_(slope.square().mean(1), moves * (1 - of_square))
        size = (square / (1 - of_square**step)).sqrt_().add_(EPSILON)
        row.addcmul_(mean, (moves / size)[:, None], value=-lr / (1 - of_mean**step))
