"""Which modules of our own a module is made of, found without importing anything, and a digest of their code."""

import hashlib
import re
from collections.abc import Iterable
from functools import cache
from importlib.util import resolve_name
from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The source of the package `tgn_assets`."""
ML = ("tgn_assets.ml",)

# Patterns, since to parse all modules would take each process a quarter of a second.
IMPORT = re.compile(r"^[ \t]*(?:from ([\w.]+) import (?:\(([^)]*)\)|(.*))|import (.*))$", re.MULTILINE)
COMMENT = re.compile("#.*")
TRIPLE_QUOTED = re.compile(r'(^[ \t]*)?"""(?:[^"\\]|\\.|"(?!""))*"""', re.MULTILINE | re.DOTALL)


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
            waiting += [name.rpartition(".")[0], *imports(path.read_text("utf-8"), package)]
    return dict(sorted(found.items()))


def code_digest(
    modules: Iterable[str], within: tuple[str, ...] = ML, folder: Path = ROOT, *, more: Iterable[str] = ()
) -> str:
    """A hash of the code of `import_closure`, and of `more` code, which changes with each of them and nothing else.

    Docstrings, lines of comment and blank lines do not count.
    """
    content = hashlib.sha256()
    for name, path in import_closure(modules, within, folder).items():
        code = without_prose(path.read_text("utf-8"))
        content.update(f"{name}\0{code}\0".encode())
    for code in more:
        content.update(f"{without_prose(code)}\0".encode())
    return content.hexdigest()


@cache
def imports(code: str, package: str = "") -> list[str]:
    """All names that `code`, a module of `package`, imports anywhere, each also with the module that it may be in."""
    names = list[str]()
    for source, several, one, plain in IMPORT.findall(without_prose(code)):
        if plain:
            names += [part.split()[0] for part in plain.split(",")]
        else:
            source = resolve_name(source, package)
            parts = COMMENT.sub("", several or one).split(",")
            names += [source, *(f"{source}.{part.split()[0]}" for part in parts if part.strip())]
    return names


@cache
def without_prose(code: str) -> str:
    """`code` without docstrings, lines of comment and blank lines."""
    kept = TRIPLE_QUOTED.sub(lambda found: found[0] if found[1] is None else "", code)
    return "\n".join(line for line in kept.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def _file(name: str, within: tuple[str, ...], folder: Path) -> Path | None:
    """Where the module or package `name` lies; None if it is in none of `within`, or no module: a class, ..."""
    if not any(name == package or name.startswith(package + ".") for package in within):
        return None
    stem = folder.joinpath(*name.split(".")[1:])
    return next((path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()), None)
