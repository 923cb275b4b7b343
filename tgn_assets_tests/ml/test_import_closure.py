from pathlib import Path

import pytest

from tgn_assets.ml.import_closure import code_digest, import_closure
from tgn_assets.ml.ranker import training_set_cache

FILES = {
    "__init__.py": "",
    "weeks.py": "import json",
    "linalg/__init__.py": "",
    "linalg/topk.py": "raise RuntimeError('imported')\nfrom tgn_assets.ml import weeks",
    "linalg/unused.py": "",
    "ranker/__init__.py": "",
    "ranker/cache.py": "def late():\n    from tgn_assets.ml.linalg.topk import top_k\nimport numpy, tgn_assets.cli",
    "ranker/relative.py": "from .cache import late\nfrom . import train",
    "ranker/train.py": "from tgn_assets.ml.ranker import relative",
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / "ml" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "ml" / name).write_text(text)
    return tmp_path


def names(module: str, source: Path) -> set[str]:
    return {name.removeprefix("tgn_assets.") for name in import_closure([f"tgn_assets.ml.{module}"], folder=source)}


def test_a_closure_follows_all_imports_without_importing(source: Path) -> None:
    expected = "ml ml.linalg ml.linalg.topk ml.ranker ml.ranker.cache ml.weeks"
    assert names("ranker.cache", source) == set(expected.split())


def test_relative_imports_and_circles_are_followed(source: Path) -> None:
    assert names("ranker.train", source) == names("ranker.cache", source) | {"ml.ranker.relative", "ml.ranker.train"}


@pytest.mark.parametrize(
    ("changed", "differs"), [("linalg/topk.py", True), ("linalg/__init__.py", True), ("linalg/unused.py", False)]
)
def test_a_digest_changes_with_modules_of_the_closure_alone(changed: str, differs: bool, source: Path) -> None:
    def digest() -> str:
        return code_digest(["tgn_assets.ml.ranker.cache"], folder=source)

    before, file = digest(), source / "ml" / changed
    file.write_text('"""Prose."""\n' + file.read_text() + "\n# a comment")
    assert digest() == before
    file.write_text(file.read_text() + "\nx = 1")
    assert (digest() != before) == differs


def test_the_training_set_cache_is_made_of_all_that_computes_it() -> None:
    closure = {name.removeprefix("tgn_assets.ml.") for name in import_closure([training_set_cache.__name__])}
    assert closure >= {"linalg.topk", "candidates.retrieval", "ranker.training_set", "ranker.training_set_cache"}
