"""Two worlds, one direction: `ml` knows nothing of Dagster, and a module imports what is above it in `LAYERS`."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import tgn_assets

PACKAGE = Path(tgn_assets.__file__).parent
MODULES = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
ML = [name for name in MODULES if name.startswith("ml.") and not name.endswith("__init__")]

LAYERS = [
    "ml.safe_text ml.weeks ml.arrays ml.schema ml.config ml.progress ml.parallel ml.artifact_io ml.import_closure",
    "ml.forgotten ml.presets ml.processor",
    "ml.connectors",
    "ml.sources",
    "ml.data",
    "ml.linalg",
    "ml.graph",
    "ml.encoder",
    "ml.candidates",
    "ml.evaluation",
    "ml.ranker",
    "ml.recommend",
    "ml.monitoring",
    "ml.export",
    "recommender",
    "setting_values settings names ray_tasks",
    "state run_launcher",
    "serve",
    "reporting",
    "forget",
    "assets",
    "checks",
    "automation",
    "definitions",
    "component",
    "cli",
]
"""The folders (and top-level modules) in the order of the weekly pipeline: none imports from one below its own line."""


def imports(path: Path) -> Iterator[str]:
    """Every module that is imported anywhere in the file, function bodies included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("name", ML)
def test_ml_never_names_dagster_nor_anything_outside_ml(name: str) -> None:
    for imported in imports(MODULES[name]):
        assert not imported.startswith("dagster")
        assert not imported.startswith("tgn_assets.") or imported.startswith("tgn_assets.ml")


def layer(module: str) -> int | None:
    """The line of `LAYERS` that names the module or a package around it."""
    parts = module.removeprefix("tgn_assets.").split(".")
    places = {name: at for at, line in enumerate(LAYERS) for name in line.split()}
    names = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((places[name] for name in names if name in places), None)


@pytest.mark.parametrize("name", [name for name in MODULES if layer(name) is not None])
def test_a_module_imports_only_what_stands_above_it(name: str) -> None:
    own = layer(name)
    assert own is not None
    for imported in imports(MODULES[name]):
        if imported.startswith("tgn_assets."):
            assert (layer(imported) or 0) <= own, f"{name} imports {imported}"


def test_every_module_has_its_place_in_the_layers() -> None:
    assert [name for name in MODULES if layer(name) is None and name not in ("__init__", "ml.__init__")] == []


MAX_MODULES, MAX_LINES, MAX_POSITIONAL = 12, 60, 5
RETIRED = {
    *("Bank", "Committee", "Demands", "Evidence", "Finding", "Found", "Frame", "Gate", "History", "Inside", "Lesson"),
    *("LessonStore", "Origin", "Pace", "Pending", "Publication", "Recall", "RunnersUp", "Say", "Terms", "Verdict"),
    *("catch_up", "choose_sources", "fit_trees", "give_back_memory", "goes_on", "heaviest", "in_threads", "neighbours"),
    *("pair_products", "standardised", "taught", "truth_size", "ungated", "widened"),
    *("Places", "explained", "fading", "place_digest", "ranks_are_1_to_5", "settle", "tell"),
    *("can_warm_start_from", "learnable"),
}
"""Names that docs/glossary.md has better ones for."""


def functions(name: str) -> Iterator[ast.FunctionDef]:
    """Every function and method of a module."""
    return (node for node in ast.walk(ast.parse(MODULES[name].read_text())) if isinstance(node, ast.FunctionDef))


def test_folders_stay_small() -> None:
    folders = Counter(path.parent for path in MODULES.values() if path.stem != "__init__")
    assert [str(folder) for folder, modules in folders.items() if modules > MAX_MODULES] == []


@pytest.mark.parametrize("name", MODULES)
def test_functions_stay_short(name: str) -> None:
    for function in functions(name):
        assert function.end_lineno
        assert function.end_lineno - function.lineno < MAX_LINES, function.name


@pytest.mark.parametrize("name", [name for name in MODULES if not name.startswith("assets.")])
def test_functions_take_few_positional_arguments(name: str) -> None:
    """Assets are excepted: Dagster passes their inputs by name, and drops keyword-only ones without a word."""
    for function in functions(name):
        given = [argument.arg for argument in function.args.posonlyargs + function.args.args]
        assert len([argument for argument in given if argument not in ("self", "cls")]) <= MAX_POSITIONAL, function.name


@pytest.mark.parametrize("name", MODULES)
def test_names_are_those_of_the_glossary(name: str) -> None:
    nodes = [
        node
        for node in ast.walk(ast.parse(MODULES[name].read_text()))
        if isinstance(node, ast.ClassDef | ast.FunctionDef)
    ]
    assert RETIRED.isdisjoint(node.name for node in nodes)
