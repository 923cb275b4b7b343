"""The code version of an asset: it follows from the modules that make its data, and from nothing else."""

import inspect
import shutil
import tokenize
from io import StringIO
from pathlib import Path

import pytest

from tgn_assets.assets import ingest, recommendations, training, weekly_report
from tgn_assets.assets.code_version import code_version
from tgn_assets.assets.exports import export_asset
from tgn_assets.ml.export.destinations import DESTINATIONS
from tgn_assets.ml.import_closure import ROOT, without_prose

FUNCTIONS = {
    asset.key.to_user_string(): inspect.unwrap(asset.op.compute_fn.decorated_fn)  # type: ignore[union-attr]
    for asset in (
        ingest.raw_interactions,
        ingest.weekly_snapshots,
        training.trained_gnn,
        training.trained_ranker,
        training.temporal_embeddings,
        recommendations.eval_metrics,
        weekly_report.weekly_report,
    )
} | {"weekly_top5_predictions": recommendations.weekly_top5_predictions}
for destination in DESTINATIONS:
    FUNCTIONS[f"{destination}_export"] = inspect.unwrap(export_asset(destination, "there").op.compute_fn.decorated_fn)  # type: ignore[union-attr]

CHANGED = {
    "ml.sources.reader": {"raw_interactions"},
    "ml.graph.snapshots": {"weekly_snapshots", "trained_gnn"},
    "ml.encoder.train": {"trained_gnn"},
    "ml.ranker.listwise": {"trained_ranker"},
    "ml.recommend.publish_checks": {"weekly_top5_predictions"},
    "ml.recommend.top_k": {"weekly_top5_predictions", "eval_metrics"},
    "ml.export.parquet": {f"{destination}_export" for destination in DESTINATIONS},
    "ml.evaluation.scored_week": {"weekly_top5_predictions", "eval_metrics"},
    "reporting.weekly_page.charts": {"weekly_report"},
}
"""Module -> the assets whose version a change of its code changes."""


@pytest.mark.parametrize("name", CHANGED)
def test_code_version_follows_the_modules_of_the_asset(name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(ROOT, tmp_path / "tgn_assets", ignore=shutil.ignore_patterns("__pycache__"))
    file = folder.joinpath(*name.split(".")).with_suffix(".py")

    def versions() -> dict[str, str]:
        return {asset: code_version(function, folder) for asset, function in FUNCTIONS.items()}

    before = versions()
    file.write_text(file.read_text() + '\n# a remark\n"""Some prose."""\n')
    assert versions() == before
    file.write_text(file.read_text() + "\nLIMIT = 1\n")
    after = versions()
    assert {asset for asset in FUNCTIONS if after[asset] != before[asset]} == CHANGED[name]


def test_prose_is_left_out_and_strings_that_are_used_stay() -> None:
    code = '''"""Module."""
SQL = """
    SELECT 1
"""
"""What it asks."""


def f():
    """Doc
    string."""
    # remark
    return g("""x""")  # kept
'''
    kept = without_prose(code)
    assert "SELECT 1" in kept and 'g("""x""")' in kept
    assert not [prose for prose in ("Module", "asks", "Doc", "# remark") if prose in kept]


def test_no_code_of_ml_is_taken_for_prose() -> None:
    def code(text: str) -> list[str]:
        layout = (tokenize.STRING, tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
        return [token.string for token in tokenize.generate_tokens(StringIO(text).readline) if token.type not in layout]

    for path in (ROOT / "ml").rglob("*.py"):
        text = path.read_text()
        assert code(without_prose(text)) == code(text), path
