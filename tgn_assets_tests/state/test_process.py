import os
import subprocess
import sys
import warnings

import pytest

from tgn_assets.state import process
from tgn_assets.state.process import ENVIRONMENT, prepare_process


def test_prepare_process_keeps_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, unset, *_ = ENVIRONMENT
    monkeypatch.setenv(mine, "mine")
    monkeypatch.setenv(unset, "so that monkeypatch restores it")
    del os.environ[unset]
    with warnings.catch_warnings():
        prepare_process()
    assert (os.environ[mine], os.environ[unset]) == ("mine", ENVIRONMENT[unset])


@pytest.mark.parametrize(("maker", "mode"), [("GenuineIntel", "AUTO,STRICT"), ("AuthenticAMD", None), ("", None)])
def test_mkl_adds_up_in_one_order_on_intel(monkeypatch: pytest.MonkeyPatch, maker: str, mode: str | None) -> None:
    monkeypatch.setenv("MKL_CBWR", "so that monkeypatch restores it")
    del os.environ["MKL_CBWR"]
    monkeypatch.setattr(process, "cpu_maker", lambda: maker)
    with warnings.catch_warnings():
        prepare_process()
    assert os.environ.get("MKL_CBWR") == mode


def test_the_memory_of_an_array_is_used_again() -> None:
    """Pages that are new have to be cleared, which a fault for each tells."""
    code = (
        "import resource, numpy as np; from tgn_assets.state.process import prepare_process; prepare_process()\n"
        "for _ in range(3):\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    np.ones(6_000_000)\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    first, *later = map(int, done.stdout.split())
    assert max(later) < first / 10
