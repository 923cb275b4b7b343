"""What a run says of an error that its user can do something about."""

import errno
import os
from pathlib import Path

import dagster as dg
import pytest

from tgn_assets.ml.connectors.text_file import replace_text
from tgn_assets.state.user_errors import as_dagster_failure


def test_a_run_names_the_file_that_cannot_be_written(tmp_path: Path) -> None:
    (page := tmp_path / "week.html").mkdir()
    with pytest.raises(dg.Failure) as raised, as_dagster_failure():
        replace_text(page, "a page")
    assert raised.value.description == f"Is a directory: {page}; `tgn doctor` checks the whole home"


def test_a_full_disk_is_no_bug() -> None:
    with (
        pytest.raises(dg.Failure, match="No space left on device: tensors; make room and try again"),
        as_dagster_failure(),
    ):
        raise OSError(28, "No space left on device", "tensors")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_missing_right_is_to_be_given(number: int) -> None:
    what = f"home.lock cannot be used: {os.strerror(number).lower()}; give this user the right to"
    with pytest.raises(dg.Failure, match=f"^{what}$"), as_dagster_failure():
        raise OSError(number, os.strerror(number), "home.lock")


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(KeyError), as_dagster_failure():
        raise KeyError("user")
