"""What a process of our own sets before it works: `tgn`, and what Dagster starts for our code location.

A program that only imports tgn_assets keeps its environment and its warning filters as they are.
"""

import ctypes
import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any

from tgn_assets.ml.processor import MKL_MODE, cpu_maker

ENVIRONMENT = {
    # OpenMP's threads sleep while they wait; to spin would take the core from the Dagster daemon or another run.
    "OMP_WAIT_POLICY": "PASSIVE",
    # Large tensors are allocated in huge pages: the vectors of a million nodes are hundreds of megabytes.
    "THP_MEM_ALLOC_ENABLE": "1",
}
"""Defaults; what the user has set stays."""

EXPECTED_WARNINGS = [
    r".* is currently in (beta|preview), and may have breaking changes",  # of Dagster 1.13: checks per week, ...
    "Asset job weekly_refresh materializes assets with varying BackfillPolicies",  # the strictest: one week per run
]
"""Patterns of messages that every command would print and that nobody can act on."""


OF_INTEL = {MKL_MODE: "AUTO,STRICT"}
"""Defaults on Intel's processors: there MKL's sums depend on the number of threads unless it is told otherwise."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of `mallopt`, as glibc's malloc.h has them."""
HEAP_LIMITS = {M_MMAP_THRESHOLD: 1 << 26, M_TRIM_THRESHOLD: 1 << 30}
"""Bytes: smaller arrays come from the heap, and what is freed there is kept for the next ones. New pages would have to
be cleared for each, which is a large part of an encoder's step. What is larger is returned at once."""


COMPILER = "torch._dynamo"


class NoCompiler(ModuleType):
    """Stands in for the front end of torch's compiler until something of it is needed: then that takes its place.

    PyTorch Geometric imports it to ask whether a model was compiled, torch's optimizers to mark what is not to be. To
    load it takes about as long as torch itself, and nothing here is compiled.
    """

    class OptimizedModule:
        """A compiled model: there is none."""

    @staticmethod
    def is_compiling() -> bool:
        """Whether a function is being compiled."""
        return False

    @staticmethod
    def disable(fn: Callable[..., Any], *_: Any, **_named: Any) -> Callable[..., Any]:
        """`fn`, which is not compiled."""
        return fn

    @staticmethod
    def graph_break() -> None:
        """Would end what is compiled together."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__path__":  # an import of a submodule asks for the path
            raise AttributeError(name)
        if sys.modules.get(COMPILER) is self:
            del sys.modules[COMPILER]
        return getattr(import_module(COMPILER), name)


def prepare_process() -> None:
    """Sets `ENVIRONMENT` and `HEAP_LIMITS`, ignores `EXPECTED_WARNINGS`, and leaves torch's compiler out. The libraries
    read the environment when torch is loaded."""
    sys.modules.setdefault(COMPILER, NoCompiler(COMPILER))
    for name, value in (ENVIRONMENT | (OF_INTEL if cpu_maker() == "GenuineIntel" else {})).items():
        os.environ.setdefault(name, value)
    for message in EXPECTED_WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):  # other C libraries do not have it
        for limit, size in HEAP_LIMITS.items():
            mallopt(limit, size)
