import subprocess
import sys

import torch

from tgn_assets.ml.linalg.csr import with_transpose


def test_values_at_one_place_are_added_up_and_transposed() -> None:
    row, column = torch.tensor([1, 0, 1]), torch.tensor([2, 0, 2])
    matrix, transpose = with_transpose(row, column, torch.tensor([1.0, 5.0, 2.0]), (2, 3))
    assert matrix.to_dense().tolist() == [[5.0, 0.0, 0.0], [0.0, 0.0, 3.0]]
    assert torch.equal(transpose.to_dense(), matrix.to_dense().T)


def test_import_changes_no_warning_filter_and_csr_tensors_do_not_warn() -> None:
    code = """
import warnings
import scipy.sparse, torch
warnings.simplefilter("error")
before = list(warnings.filters)
from tgn_assets.ml.linalg.csr import with_transpose
from tgn_assets.ml.linalg.pair_dot import pair_dot
one, zero = torch.ones(1, 1), torch.zeros(1, dtype=torch.int64)
with_transpose(zero, zero, one[0], (1, 1))
pair_dot(one, one, zero, zero)
assert warnings.filters == before
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
