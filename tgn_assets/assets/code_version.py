"""The `code_version` of each asset: a digest of the code that makes its data, which nobody has to remember to raise.

Dagster keeps the version with every materialization, and its UI marks a week as outdated whose version is another one
than that of the code today; nothing is run again for it. A version follows from the asset's function, the functions of
its own module that it calls, and all modules of `MADE_BY` that these import, directly or through others. Docstrings and
lines of comment do not count, so prose changes no version; a change of `ml.ranker` changes that of `trained_ranker` and
of what reads it, and not that of `trained_gnn`. What an asset only shows (plots, previews) does not count either.
"""

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import tgn_assets

MADE_BY = ("tgn_assets.ml.", "tgn_assets.reporting.weekly_page.")
"""Packages whose modules decide what an asset holds."""
ROOT = Path(tgn_assets.__file__).parents[1]

IMPORT = re.compile(r"^[ \t]*from (tgn_assets[\w.]*) import (?:\(([^)]*)\)|(.*))$", re.MULTILINE)
TRIPLE_QUOTED = re.compile(r'(^[ \t]*)?"""(?:[^"\\]|\\.|"(?!""))*"""', re.MULTILINE | re.DOTALL)


def code_version(function: Callable[..., Any]) -> str:
    """The version of what `function`, at the top of a module, makes: twelve hexadecimal digits."""
    own = [function, *_helpers(function)]
    modules = closure({name for part in own for name in _imported(part)})
    code = [without_prose(inspect.getsource(part)) for part in own] + [_code(name) for name in sorted(modules)]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()[:12]


def closure(modules: Iterable[str]) -> set[str]:
    """`modules` and all modules of `MADE_BY` that they import, by full name."""
    found: set[str] = set()
    waiting = list(modules)
    while waiting:
        if (name := waiting.pop()) not in found:
            found.add(name)
            waiting += imports(_code(name))
    return found


def imports(code: str) -> Iterator[str]:
    """The modules of `MADE_BY` that `code` imports anywhere, by full name."""
    for module, several, one in IMPORT.findall(code):
        names = [f"{module}.{name.split()[0]}" for name in (several or one).split(",") if name.strip()]
        yield from (name for name in [module, *names] if name.startswith(MADE_BY) and _file(name).exists())


def without_prose(code: str) -> str:
    """`code` without docstrings, lines of comment and blank lines."""
    kept = TRIPLE_QUOTED.sub(lambda found: found[0] if found[1] is None else "", code)
    return "\n".join(line for line in kept.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def _helpers(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Other functions of the same module that `function` calls."""
    named = vars(inspect.getmodule(function)).items()
    return [
        value
        for name, value in named
        if inspect.isfunction(value) and value.__module__ == function.__module__ and name in function.__code__.co_names
    ]


def _imported(function: Callable[..., Any]) -> Iterator[str]:
    """The modules of `MADE_BY` that `function` imports, or that its module imports names from that it uses."""
    yield from imports(inspect.getsource(function))
    for name in function.__code__.co_names:
        module = getattr(function.__globals__.get(name), "__module__", None) or ""
        if module.startswith(MADE_BY):
            yield module


@cache
def _code(module: str) -> str:
    return without_prose(_file(module).read_text())


def _file(module: str) -> Path:
    return ROOT.joinpath(*module.split(".")).with_suffix(".py")
