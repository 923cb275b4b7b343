"""Sparse CSR tensors together with their transposes, built by SciPy."""

import torch
from scipy import sparse
from torch import Tensor


def with_transpose(row: Tensor, column: Tensor, values: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The CSR matrix with `values` at (`row`, `column`), added up where they meet, and its transpose."""
    device = values.device
    # SciPy counts where torch sorts. 32 bits are enough for any graph that fits.
    at = row.int().cpu().numpy(), column.int().cpu().numpy()
    made = sparse.coo_array((values.cpu().numpy(), at), shape).tocsr()
    return _csr(made).to(device), _csr(made.T.tocsr()).to(device)


def _csr(matrix: sparse.csr_array) -> Tensor:
    parts = [torch.from_numpy(part) for part in (matrix.indptr, matrix.indices, matrix.data)]
    return torch.sparse_csr_tensor(parts[0], parts[1], parts[2], matrix.shape, check_invariants=False)
