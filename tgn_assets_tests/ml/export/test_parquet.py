from pathlib import Path

import duckdb
import pytest

from tgn_assets.ml.export.destinations import DESTINATIONS, export_weeks
from tgn_assets.ml.export.parquet import EXPORTED, FILE, ExportError, export_week, exportable_weeks
from tgn_assets.state.warehouse import Warehouse
from tgn_assets_tests.support.s3 import BUCKET, SECRET, bucket
from tgn_assets_tests.support.weekly_reports import WEEKS, metrics, warehouse


@pytest.fixture
def filled(tmp_path: Path) -> Warehouse:
    return warehouse(tmp_path)


def test_hive_partition_reader_finds_every_row(filled: Warehouse, tmp_path: Path) -> None:
    folder = str(tmp_path / "it's out")
    rows = export_weeks(DESTINATIONS["parquet"], filled.reader, folder, WEEKS[1:])
    with filled.reader() as con:
        assert exportable_weeks(con) == WEEKS[1:]
        for table in EXPORTED:
            files = f"{folder}/{table}/*/*.parquet"
            read = f"read_parquet({files!r}, hive_partitioning = true)"
            columns = ", ".join(name for name, *_ in con.execute(f"DESCRIBE {table}").fetchall())
            stored = con.execute(f"SELECT {columns} FROM {table} ORDER BY ALL").fetchall()
            assert con.execute(f"SELECT {columns} FROM {read} ORDER BY ALL").fetchall() == stored
            assert rows[table] == len(stored) > 0


def test_exporting_again_gives_same_bytes_or_replaces_changes(filled: Warehouse, tmp_path: Path) -> None:
    week, file = WEEKS[-1], tmp_path / "out" / "eval_metrics" / f"week={WEEKS[-1]}" / FILE
    with filled.reader() as con:
        export_week(con, str(tmp_path / "out"), week)
        first = file.read_bytes()
        export_week(con, str(tmp_path / "out"), week)
    assert file.read_bytes() == first
    filled.replace_week_tables(week, {"eval_metrics": metrics(week, 0.1, 0.2)})
    with filled.reader() as con:
        export_week(con, str(tmp_path / "out"), week)
    value = duckdb.execute(f"SELECT value FROM '{file}' WHERE model = 'tgn_assets'").fetchall()
    assert (value, [path.name for path in file.parent.iterdir()]) == ([(0.1,)], [FILE])


def test_unwritable_folder_names_a_remedy(filled: Warehouse, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    with (
        filled.reader() as con,
        pytest.raises(ExportError, match=r"TGN_EXPORT_PARQUET: .*`tgn export --week 2024-01-22`"),
    ):
        export_week(con, str(tmp_path / "out"), WEEKS[-1])


def test_an_export_that_breaks_off_leaves_the_old_file(
    filled: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out" / "eval_metrics" / f"week={WEEKS[-1]}" / FILE
    with filled.reader() as con:
        export_week(con, str(tmp_path / "out"), WEEKS[-1])
    before = file.read_bytes()
    filled.replace_week_tables(WEEKS[-1], {"eval_metrics": metrics(WEEKS[-1], 0.1, 0.2)})

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("tgn_assets.ml.export.parquet.os.replace", full)
    with filled.reader() as con, pytest.raises(ExportError, match="No space left"):
        export_week(con, str(tmp_path / "out"), WEEKS[-1])
    assert file.read_bytes() == before


def test_object_store_export_replaces_each_object(filled: Warehouse, tmp_path: Path) -> None:
    week = WEEKS[-1]
    here = tmp_path / "eval_metrics" / f"week={week}" / FILE
    with bucket() as s3:
        for value in (0.3, 0.1):
            filled.replace_week_tables(week, {"eval_metrics": metrics(week, value, 0.2)})
            with filled.reader() as con:
                rows = export_week(con, f"s3://{BUCKET}/out", week)
                assert export_week(con, str(tmp_path), week) == rows
            assert s3.cat(f"{BUCKET}/out/eval_metrics/week={week}/{FILE}") == here.read_bytes()
        assert s3.find(f"{BUCKET}/out") == [f"{BUCKET}/out/{table}/week={week}/{FILE}" for table in sorted(EXPORTED)]
        with filled.reader() as con, pytest.raises(ExportError, match="TGN_EXPORT_PARQUET: s3://none/") as raised:
            export_week(con, "s3://none", week)
        assert SECRET not in str(raised.value)
