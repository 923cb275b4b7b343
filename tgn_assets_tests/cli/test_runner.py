"""What a walk over several weeks says of itself."""

import pytest

from tgn_assets.cli import runner
from tgn_assets.cli.runner import Runner


def test_the_time_left_of_a_walk_is_that_of_its_last_week_not_of_its_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, said, seconds = [0.0], list[str](), iter([600.0, 20.0, 30.0])

    def run(_: Runner, task: str, **__: str) -> None:
        said.append(task)
        now[0] += next(seconds)

    monkeypatch.setattr(runner.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(Runner, "_run", run)
    object.__new__(Runner).refresh(["2024-01-01", "2024-01-08", "2024-01-15"])
    assert said == [
        "week 2024-01-01 (1 of 3)",
        "week 2024-01-08 (2 of 3), about 20 min 00 s left",
        "week 2024-01-15 (3 of 3), about 20 s left",
    ]
