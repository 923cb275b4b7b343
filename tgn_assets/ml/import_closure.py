"""Which modules of our own a module is made of, found without importing anything, and a digest of their code."""

import ast
import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The source of the package `tgn_assets`."""
ML = ("tgn_assets.ml",)


def import_closure(modules: Iterable[str], within: tuple[str, ...] = ML, folder: Path = ROOT) -> dict[str, Path]:
    """The files of `modules` and of all modules that these import, directly or not, by dotted name.

    Imports in functions count, and so do the packages around a module. Only modules in the packages `within` are
    followed. `folder` holds the source of `tgn_assets`.
    """
    found, waiting = dict[str, Path](), list(modules)
    while waiting:
        name = waiting.pop()
        path = None if name in found else _file(name, within, folder)
        if path is not None:
            found[name] = path
            package = name if path.name == "__init__.py" else name.rpartition(".")[0]
            waiting += [name.rpartition(".")[0], *imports(path.read_text(), package)]
    return dict(sorted(found.items()))


def code_digest(
    modules: Iterable[str], within: tuple[str, ...] = ML, folder: Path = ROOT, *, more: Iterable[str] = ()
) -> str:
    """A hash of the code of `import_closure`, and of `more` code, which changes with each of them and nothing else.

    Docstrings, comments and layout do not count.
    """
    content = hashlib.sha256()
    for name, path in import_closure(modules, within, folder).items():
        content.update(f"{name}\0{without_prose(path.read_text())}\0".encode())
    for code in more:
        content.update(f"{without_prose(code)}\0".encode())
    return content.hexdigest()


@cache
def imports(code: str, package: str = "") -> list[str]:
    """All names that `code`, a module of `package`, imports anywhere, each also with the module that it may be in."""
    return list(_imports(ast.parse(code), package))


@cache
def without_prose(code: str) -> str:
    """`code` in a layout of its own, without docstrings and comments.

    >>> without_prose("def f():  # a comment\\n    'What it does.'\\n    return  1")
    'def f():\\n    return 1'
    """
    return ast.unparse(_WithoutProse().visit(ast.parse(code)))


class _WithoutProse(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | ast.Pass | None:
        """Drops a string that stands by itself."""
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


def _file(name: str, within: tuple[str, ...], folder: Path) -> Path | None:
    """Where the module or package `name` lies; None if it is in none of `within`, or no module: a class, ..."""
    if not any(name == package or name.startswith(package + ".") for package in within):
        return None
    stem = folder.joinpath(*name.split(".")[1:])
    return next((path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()), None)
