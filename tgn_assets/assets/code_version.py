"""The `code_version` of each asset: a digest of the code that makes its data, which nobody has to remember to raise.

Dagster keeps the version with every materialization, and its UI marks a week as outdated whose version is another one
than that of the code today; nothing is run again for it. A version follows from the asset's function, the functions of
its own module that it calls, and all modules of `MADE_BY` that these import, directly or through others. Docstrings and
comments do not count, so prose changes no version; a change of `ml.ranker` changes that of `trained_ranker` and of what
reads it, and not that of `trained_gnn`. What an asset only shows (plots, previews) does not count either.
"""

import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tgn_assets.ml.import_closure import ROOT, code_digest, imports

MADE_BY = ("tgn_assets.ml", "tgn_assets.reporting.weekly_page")
"""Packages whose modules decide what an asset holds."""


def code_version(function: Callable[..., Any], folder: Path = ROOT) -> str:
    """The version of what `function`, at the top of a module, makes: twelve hexadecimal digits.

    `folder` holds the source of `tgn_assets`.
    """
    own = [function, *_helpers(function)]
    modules = {name for part in own for name in _imported(part)}
    return code_digest(modules, MADE_BY, folder, more=[inspect.getsource(part) for part in own])[:12]


def _helpers(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """Other functions of the same module that `function` calls."""
    named = vars(inspect.getmodule(function)).items()
    return [
        value
        for name, value in named
        if inspect.isfunction(value) and value.__module__ == function.__module__ and name in function.__code__.co_names
    ]


def _imported(function: Callable[..., Any]) -> Iterator[str]:
    """The modules that `function` imports, or that made what it uses of its module or of a function around it."""
    yield from imports(inspect.getsource(function))
    used = [function.__globals__.get(name) for name in function.__code__.co_names]
    for value in (*used, *inspect.getclosurevars(function).nonlocals.values()):
        yield getattr(value, "__module__", None) or ""
