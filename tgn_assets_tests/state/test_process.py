import os
import warnings

import pytest

from tgn_assets.state.process import ENVIRONMENT, prepare_process


def test_prepare_process_keeps_what_the_user_has_set(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, unset, *_ = ENVIRONMENT
    monkeypatch.setenv(mine, "mine")
    monkeypatch.setenv(unset, "so that monkeypatch restores it")
    del os.environ[unset]
    with warnings.catch_warnings():
        prepare_process()
    assert (os.environ[mine], os.environ[unset]) == ("mine", ENVIRONMENT[unset])
