"""Sparse CSR tensors together with their transposes, built by SciPy."""

import threading
import warnings
from functools import cache

import torch
from scipy import sparse
from torch import Tensor

_lock = threading.Lock()


def with_transpose(row: Tensor, column: Tensor, values: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The CSR matrix with `values` at (`row`, `column`), added up where they meet, and its transpose.

    >>> matrix, transpose = with_transpose(torch.tensor([0, 1]), torch.tensor([2, 0]), torch.tensor([5.0, 7.0]), (2, 3))
    >>> matrix.to_dense().tolist()
    [[0.0, 0.0, 5.0], [7.0, 0.0, 0.0]]
    >>> transpose.shape
    torch.Size([3, 2])
    """
    device = values.device
    # SciPy counts where torch sorts. 32 bits are enough for any graph that fits.
    at = row.int().cpu().numpy(), column.int().cpu().numpy()
    made = sparse.coo_array((values.cpu().numpy(), at), shape).tocsr()
    return _from_scipy(made).to(device), _from_scipy(made.T.tocsr()).to(device)


def csr_tensor(start: Tensor, column: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """The CSR matrix whose row r has `values` [start[r]:start[r + 1]] at `column`; the parts are not checked.

    >>> csr_tensor(torch.tensor([0, 1, 1]), torch.tensor([2]), torch.tensor([5.0]), (2, 3)).to_dense().tolist()
    [[0.0, 0.0, 5.0], [0.0, 0.0, 0.0]]
    """
    with _lock:
        _first_csr_tensor()
    return torch.sparse_csr_tensor(start, column, values, shape, check_invariants=False)


def _from_scipy(matrix: sparse.csr_array) -> Tensor:
    start, column, values = (torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    return csr_tensor(start, column, values, matrix.shape)


@cache
def _first_csr_tensor() -> None:
    """Silences the warning that torch gives once a process, at the first CSR tensor: that the interface may change.

    Restores the host's warning filters; two threads that did that at once could leave them changed.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta state")
        none = torch.zeros(0, dtype=torch.int64)
        torch.sparse_csr_tensor(torch.zeros(1, dtype=torch.int64), none, none.float(), (0, 0), check_invariants=True)
