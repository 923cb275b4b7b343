import json
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from benchmarks.same_bytes import differences, main

CHECKPOINT = "trained_ranker/2024-01-01"
ROWS = "('u1', 'e1', 0.5), ('u1', 'e2', 0.25), ('u2', 'e1', 1.0)"
SAME_ROWS = "('u2', 'e1', 1.0), ('u1', 'e1', 0.5), ('u1', 'e2', 0.25)"
TENSORS = {"weight": np.arange(6.0).reshape(2, 3), "bias": np.zeros(3)}


def make_home(
    folder: Path,
    *,
    rows: str = ROWS,
    tensors: dict[str, NDArray[np.floating]] = TENSORS,
    model: str = "tree\nversion=v4",
) -> Path:
    """A home with one table and one checkpoint."""
    checkpoint = folder / "artifacts" / CHECKPOINT
    checkpoint.mkdir(parents=True)
    with duckdb.connect(folder / "warehouse.duckdb") as con:
        con.execute("CREATE TABLE lists (user_id VARCHAR, event_id VARCHAR, score DOUBLE)")
        con.execute("CREATE VIEW best AS FROM lists WHERE score > 0.4")
        con.execute(f"INSERT INTO lists VALUES {rows}")
    save_file(tensors, checkpoint / "tensors.safetensors")
    (checkpoint / "meta.json").write_text(json.dumps({"trees": model}))
    return folder


def test_same_bytes_ignores_row_order_names_and_times(tmp_path: Path) -> None:
    renamed = {"network.weight": TENSORS["weight"], "bias": TENSORS["bias"]}
    homes = make_home(tmp_path / "a"), make_home(tmp_path / "b", rows=SAME_ROWS, tensors=renamed)
    (homes[1] / "artifacts" / CHECKPOINT / "extra.json").write_text("{}")
    for home, hour in zip(homes, (6, 7), strict=True):
        with duckdb.connect(home / "warehouse.duckdb") as con:
            con.execute(f"CREATE TABLE made_weeks AS SELECT TIMESTAMP '2024-01-08 0{hour}:00:00' AS made_at")
    assert list(differences(*homes)) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rows": ROWS.replace("0.25", "0.26")}, "table lists: 1 rows only in A, 1 only in B"),
        ({"rows": f"{ROWS}, ('u2', 'e1', 1.0)"}, "table lists: 0 rows only in A, 1 only in B"),
        ({"tensors": TENSORS | {"bias": np.array([0, 0, 1e-9])}}, f"{CHECKPOINT}/bias: differs"),
        ({"tensors": TENSORS | {"bias": np.zeros(3, np.float32)}}, f"{CHECKPOINT}/bias: differs"),
        ({"tensors": {"weight": TENSORS["weight"]}}, f"{CHECKPOINT}/bias: only in A"),
        ({"model": "tree\nversion=v5"}, f"{CHECKPOINT}/trees: differs"),
    ],
    ids=["row", "repeated row", "tensor", "dtype", "missing tensor", "LightGBM model"],
)
def test_same_bytes_finds_difference(tmp_path: Path, change: dict[str, Any], expected: str) -> None:
    assert list(differences(make_home(tmp_path / "a"), make_home(tmp_path / "b", **change))) == [expected]


def test_same_bytes_reports_missing_table_and_column(tmp_path: Path) -> None:
    homes = make_home(tmp_path / "a"), make_home(tmp_path / "b")
    with duckdb.connect(homes[0] / "warehouse.duckdb") as con:
        con.execute("CREATE TABLE users (user_id VARCHAR)")
    with duckdb.connect(homes[1] / "warehouse.duckdb") as con:
        con.execute("ALTER TABLE lists ADD COLUMN source VARCHAR")
    assert list(differences(*homes)) == [
        "table lists: only one has the columns source",
        "table users: only one has the columns user_id",
    ]


def test_same_bytes_exit_status_and_ignored_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    homes = make_home(tmp_path / "a"), make_home(tmp_path / "b", rows=f"{ROWS}, ('u3', 'e3', 1.0)")
    monkeypatch.setattr("sys.argv", ["same_bytes", *map(str, homes)])
    assert main() == 1
    assert capsys.readouterr().out == "table lists: 0 rows only in A, 1 only in B\n"
    monkeypatch.setattr("sys.argv", ["same_bytes", *map(str, homes), "--ignore-rows", "lists", "user_id = 'u3'"])
    assert main() == 0
    assert capsys.readouterr().out == "no difference\n"
