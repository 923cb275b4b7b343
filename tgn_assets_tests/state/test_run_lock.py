import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tgn_assets.state import run_lock
from tgn_assets.state.run_lock import hold


def test_a_run_waits_for_another_and_says_now_and_then_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_lock, "REMIND_SECONDS", 0.1)
    lock, order = tmp_path / "run.lock", list[str]()
    lines, reminded = list[str](), threading.Event()

    def log(line: str) -> None:
        lines.append(line)
        if len(lines) == 2:
            reminded.set()

    def second() -> None:
        with hold(lock, "run b", log):
            order.append("b")

    thread = threading.Thread(target=second)
    with hold(lock, "run a", print):
        thread.start()
        assert reminded.wait(5)
        order.append("a")
    thread.join(5)
    assert order == ["a", "b"]
    assert lines[0] == f"waiting for run a, which holds {lock}"


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    code = f"""
import os
from pathlib import Path
from tgn_assets.state.run_lock import hold
with hold(Path({str(lock)!r}), "the dead", print):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert lock.read_text() == "the dead"
    lines: list[str] = []
    with hold(lock, "the living", lines.append):
        assert lock.read_text() == "the living"
    assert lines == [] and lock.read_text() == ""


def test_a_failing_run_releases_its_lock(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    with pytest.raises(RuntimeError), hold(lock, "run a", print):
        raise RuntimeError
    with hold(lock, "run b", print):
        assert lock.read_text() == "run b"
