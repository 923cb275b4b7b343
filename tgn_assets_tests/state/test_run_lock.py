import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tgn_assets.state.run_lock import hold


def test_a_second_run_waits_for_the_first_and_says_for_whom(tmp_path: Path) -> None:
    lock, said, order = tmp_path / "run.lock", [], []
    waiting = threading.Event()

    def say(line: str) -> None:
        said.append(line)
        waiting.set()

    def second() -> None:
        with hold(lock, "run b", say, poll=0.01):
            order.append("b")

    thread = threading.Thread(target=second)
    with hold(lock, "run a", print):
        thread.start()
        assert waiting.wait(5)
        order.append("a")
    thread.join(5)
    assert order == ["a", "b"]
    assert said == [f"waiting for run a, which holds {lock}"]


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    code = f"""
import os
from pathlib import Path
import pytest

from tgn_assets.state.run_lock import hold
with hold(Path({str(lock)!r}), "the dead", print):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    said: list[str] = []
    with hold(lock, "the living", said.append):
        assert lock.read_text() == "the living"
    assert said == [] and lock.read_text() == ""


def test_a_failing_run_lets_go(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    with pytest.raises(RuntimeError), hold(lock, "run a", print):
        raise RuntimeError
    with hold(lock, "run b", print):
        assert lock.read_text() == "run b"
