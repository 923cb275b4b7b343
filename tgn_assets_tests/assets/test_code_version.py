"""The code version of an asset: it follows from the modules that make its data, and from nothing else."""

import inspect
import tokenize
from io import StringIO
from pathlib import Path
from tokenize import generate_tokens

import pytest

from tgn_assets.assets import code_version as module
from tgn_assets.assets import ingest, recommendations, training, weekly_report
from tgn_assets.assets.code_version import closure, code_version, without_prose

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

CHANGED = {
    "ml.sources.reader": {"raw_interactions"},
    "ml.graph.snapshots": {"weekly_snapshots", "trained_gnn"},
    "ml.encoder.train": {"trained_gnn"},
    "ml.ranker.listwise": {"trained_ranker", "temporal_embeddings"},
    "ml.recommend.publish_checks": {"weekly_top5_predictions"},
    "ml.recommend.top_k": {"weekly_top5_predictions", "eval_metrics"},
    "ml.evaluation.scored_week": {"weekly_top5_predictions", "eval_metrics"},
    "reporting.weekly_page.charts": {"weekly_report"},
}
"""Module -> the assets whose version a change of its code changes."""


@pytest.fixture
def changed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Module -> what is added to its code."""
    more: dict[str, str] = {}
    of_file = module._file

    class Code:
        def __init__(self, name: str) -> None:
            self.name, self.file = name, of_file(name)

        def exists(self) -> bool:
            return self.file.exists()

        def read_text(self) -> str:
            return self.file.read_text() + more.get(self.name, "")

    monkeypatch.setattr(module, "_file", Code)
    monkeypatch.setattr(module, "_code", module._code.__wrapped__)
    return more


@pytest.mark.parametrize("name", CHANGED)
def test_code_version_follows_the_modules_of_the_asset(name: str, changed: dict[str, str]) -> None:
    before = {asset: code_version(function) for asset, function in FUNCTIONS.items()}
    changed[f"tgn_assets.{name}"] = '\n# a remark\n"""Some prose."""\n'
    assert {asset: code_version(function) for asset, function in FUNCTIONS.items()} == before
    changed[f"tgn_assets.{name}"] = "\nLIMIT = 1\n"
    after = {asset: code_version(function) for asset, function in FUNCTIONS.items()}
    assert {asset for asset in FUNCTIONS if after[asset] != before[asset]} == CHANGED[name]


def test_closure_follows_imports_in_functions_and_in_parentheses() -> None:
    found = closure(["tgn_assets.ml.ranker.train"])
    assert {"tgn_assets.ml.linalg.topk", "tgn_assets.ml.schema", "tgn_assets.ml.evaluation.baselines"} <= found
    assert not [name for name in found if not name.startswith(module.MADE_BY)]


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
        return [token.string for token in generate_tokens(StringIO(text).readline) if token.type not in layout]

    for path in Path(module.ROOT, "tgn_assets", "ml").rglob("*.py"):
        text = path.read_text()
        assert code(without_prose(text)) == code(text), path
