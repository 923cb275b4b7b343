import torch

from tgn_assets.ml.linalg.csr import with_transpose


def test_values_at_one_place_are_added_up_and_transposed() -> None:
    row, column = torch.tensor([1, 0, 1]), torch.tensor([2, 0, 2])
    matrix, transpose = with_transpose(row, column, torch.tensor([1.0, 5.0, 2.0]), (2, 3))
    assert matrix.to_dense().tolist() == [[5.0, 0.0, 0.0], [0.0, 0.0, 3.0]]
    assert torch.equal(transpose.to_dense(), matrix.to_dense().T)
