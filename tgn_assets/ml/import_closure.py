"""Which modules of `ml` a module is made of: itself and all that it imports, found without importing anything."""

import ast
import hashlib
from collections.abc import Iterator
from importlib.util import resolve_name
from pathlib import Path

PACKAGE = "tgn_assets.ml"
FOLDER = Path(__file__).parent


def import_closure(module: str, folder: Path = FOLDER) -> dict[str, Path]:
    """The files of `module` and of every module of `ml` that it imports, directly or not, by dotted name.

    Imports within functions count, and so do the packages around a module. `folder` holds the source of `ml`.
    """
    found, waiting = dict[str, Path](), [module]
    while waiting:
        name = waiting.pop()
        path = None if name in found else _file(name, folder)
        if path is not None:
            found[name] = path
            waiting += [name.rpartition(".")[0], *_imports(path, name)]
    return dict(sorted(found.items()))


def code_digest(module: str, folder: Path = FOLDER) -> str:
    """A hash of the source of `import_closure`: it changes with each of these modules and with no other."""
    content = hashlib.sha256()
    for name, path in import_closure(module, folder).items():
        content.update(f"{name}\0{path.read_text()}\0".encode())
    return content.hexdigest()


def _file(name: str, folder: Path) -> Path | None:
    """Where the module or package `name` lies; None if it is no module of `ml`: another package, a class, ..."""
    if name != PACKAGE and not name.startswith(PACKAGE + "."):
        return None
    stem = folder.joinpath(*name.split(".")[2:])
    return next((path for path in (stem / "__init__.py", stem.with_suffix(".py")) if path.is_file()), None)


def _imports(path: Path, module: str) -> Iterator[str]:
    """All names that the file imports, each with the module that it may come from."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = resolve_name("." * node.level + (node.module or ""), package)
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)
