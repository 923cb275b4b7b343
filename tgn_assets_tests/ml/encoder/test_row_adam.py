import pytest
import torch
from torch import Tensor

from tgn_assets.ml.encoder import row_adam
from tgn_assets.ml.encoder.row_adam import RowAdam


def stepped(gradients: list[Tensor], weight_decay: float = 0.0, sparse: bool = False) -> Tensor:
    """A table of ones after a step of .1 with each of the gradients."""
    table = torch.ones_like(gradients[0]).requires_grad_()
    optimizer = RowAdam([table], lr=0.1, weight_decay=weight_decay)
    for gradient in gradients:
        table.grad = gradient.to_sparse(1) if sparse else gradient
        optimizer.step()
    return table.detach()


def test_rows_of_one_number_move_as_by_adam() -> None:
    draw = torch.Generator().manual_seed(0)
    gradients = [torch.randn(5, 1, generator=draw) for _ in range(9)]
    expected = torch.ones(5, 1, requires_grad=True)
    adam = torch.optim.Adam([expected], lr=0.1, weight_decay=0.3)
    for gradient in gradients:
        expected.grad = gradient
        adam.step()
    torch.testing.assert_close(stepped(gradients, weight_decay=0.3), expected.detach())


def test_a_row_is_divided_by_its_root_mean_square() -> None:
    # The first step is the gradient (3, 4) over the root of (9 + 16) / 2; the second row has none.
    moved = stepped([torch.tensor([[3.0, 4.0], [0.0, 0.0]])], weight_decay=0.0)
    torch.testing.assert_close(moved, torch.tensor([[1 - 0.3 / 12.5**0.5, 1 - 0.4 / 12.5**0.5], [1.0, 1.0]]))


def test_rows_without_gradient_stay_whatever_the_penalty() -> None:
    once, never = torch.tensor([[1.0], [0.0]]), torch.zeros(2, 1)
    assert stepped([once, never, never], weight_decay=0.5).tolist() == stepped([once], weight_decay=0.5).tolist()
    assert stepped([once] * 30, weight_decay=0.5)[1] == 1.0


@pytest.mark.parametrize("size", [1, 2, 100])
def test_sparse_gradients_and_blocks_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    draw = torch.Generator().manual_seed(1)
    gradients = [torch.randn(7, 65, generator=draw) * (torch.rand(7, 1, generator=draw) < 0.5) for _ in range(5)]
    expected = stepped(gradients, weight_decay=0.1)
    monkeypatch.setattr(row_adam, "ADAM_BLOCK", size)
    for sparse in (False, True):
        assert torch.equal(stepped(gradients, weight_decay=0.1, sparse=sparse), expected)
