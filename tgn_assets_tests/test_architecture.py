"""Two worlds, one direction: `ml` knows nothing of Dagster, and a module imports what is above it in `LAYERS`."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

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


@cache
def trees() -> dict[str, ast.Module]:
    """Every module as Python reads it."""
    return {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imports(name: str) -> Iterator[str]:
    """Every module that is imported anywhere in the module `name`, function bodies included."""
    for node in ast.walk(trees()[name]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_ml_never_names_dagster_nor_anything_outside_ml() -> None:
    outside = re.compile(r"dagster|tgn_assets\.(?!ml)")
    assert [(name, module) for name in ML for module in imports(name) if outside.match(module)] == []


def layer(module: str) -> int | None:
    """The line of `LAYERS` that names the module or a package around it."""
    parts = module.removeprefix("tgn_assets.").split(".")
    places = {name: at for at, line in enumerate(LAYERS) for name in line.split()}
    names = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((places[name] for name in names if name in places), None)


def test_a_module_imports_only_what_stands_above_it() -> None:
    placed = [(name, own) for name in MODULES if (own := layer(name)) is not None]
    ours = ((name, own, module) for name, own in placed for module in imports(name) if module.startswith("tgn_assets."))
    assert [(name, module) for name, own, module in ours if (layer(module) or 0) > own] == []


def test_every_module_has_its_place_in_the_layers() -> None:
    assert [name for name in MODULES if layer(name) is None and name not in ("__init__", "ml.__init__")] == []


MAX_MODULES, MAX_LINES, MAX_POSITIONAL = 12, 60, 5
RETIRED = {
    *("Bank", "Committee", "Demands", "Evidence", "Finding", "Found", "Frame", "Gate", "History", "Inside", "Lesson"),
    *("LessonStore", "Origin", "Pace", "Pending", "Publication", "Recall", "RunnersUp", "Say", "Terms", "Verdict"),
    *("catch_up", "choose_sources", "fit_trees", "give_back_memory", "goes_on", "heaviest", "in_threads", "neighbours"),
    *("pair_products", "standardised", "taught", "truth_size", "ungated", "widened"),
    *("Places", "explained", "fading", "place_digest", "ranks_are_1_to_5", "settle", "tell"),
    *("can_warm_start_from", "learnable", "NextWeek", "Rule", "next_week"),
}
"""Names that docs/glossary.md has better ones for."""


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    """Every function and method, with its module."""
    for name, tree in trees().items():
        yield from ((name, node) for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_folders_stay_small() -> None:
    folders = Counter(path.parent for path in MODULES.values() if path.stem != "__init__")
    assert [str(folder) for folder, modules in folders.items() if modules > MAX_MODULES] == []


def test_contributing_names_the_full_folders() -> None:
    folders = Counter(path.parent for path in MODULES.values() if path.stem != "__init__")
    full = {folder.relative_to(PACKAGE).as_posix() for folder, modules in folders.items() if modules == MAX_MODULES}
    (row,) = re.findall(
        r"a folder has at most \d+ modules \| (.*) are full", (PACKAGE.parent / "CONTRIBUTING.md").read_text()
    )
    assert set(re.findall("`(.+?)`", row)) == full


def test_functions_stay_short() -> None:
    lines = ((name, of.name, (of.end_lineno or 0) - of.lineno) for name, of in functions())
    assert [where for where in lines if where[-1] >= MAX_LINES] == []


def test_functions_take_few_positional_arguments() -> None:
    """Assets are excepted: Dagster passes their inputs by name, and drops keyword-only ones without a word."""
    given = ((name, of.name, [one.arg for one in of.args.posonlyargs + of.args.args]) for name, of in functions())
    taken = ((name, of, [arg for arg in args if arg not in ("self", "cls")]) for name, of, args in given)
    many = (where for where in taken if len(where[-1]) > MAX_POSITIONAL)
    assert [where for where in many if not where[0].startswith("assets.")] == []


def test_names_are_those_of_the_glossary() -> None:
    nodes = ((name, node) for name, tree in trees().items() for node in ast.walk(tree))
    named = ((name, node.name) for name, node in nodes if isinstance(node, ast.ClassDef | ast.FunctionDef))
    assert [where for where in named if where[1] in RETIRED] == []


def test_texts_are_read_in_utf8_whatever_the_locale() -> None:
    assert [name for name, path in MODULES.items() if ".read_text()" in path.read_text("utf-8")] == []
