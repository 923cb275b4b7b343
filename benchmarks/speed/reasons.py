"""What share of a warm week's processor time goes into its reasons, their check included, on a synthetic log.

    python -m benchmarks.speed.reasons [--users 3000] [--events 300] [--weeks 10]

On one core, so that the processor time of the process is that of what runs.
"""

import argparse
import os
import time
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch

from tgn_assets import Recommender
from tgn_assets.checks.reasons import SAMPLE
from tgn_assets.ml.recommend import top_k
from tgn_assets.ml.recommend.reason_check import check_reasons
from tgn_assets.ml.recommend.reason_choice import ReasonChooser
from tgn_assets.ml.recommend.reason_lists import WeekReasons
from tgn_assets.ml.recommend.reasons import ReasonTable
from tgn_assets.ml.weeks import shift
from tgn_assets.recommender.memory import Memory
from tgn_assets_tests.support.worlds import START, habits

STEPS = [
    (WeekReasons, ("__init__", "of_baseline", "of_new_users", "after_changes")),
    (ReasonChooser, ("choose",)),
    (ReasonTable, ("add", "texts")),
    (top_k, ("first_true",)),
]
"""All that makes reasons."""


class Stopwatch:
    """Processor seconds of functions, those that are called within one another counted once."""

    def __init__(self) -> None:
        self.seconds, self.running = 0.0, False

    def watch(self, place: Any, name: str) -> None:
        """Counts the calls of the function `name` of the class or module `place` from now on."""
        setattr(place, name, self.counted(getattr(place, name)))

    def counted(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its seconds counted."""

        def call(*given: Any, **named: Any) -> Any:
            if self.running:
                return function(*given, **named)
            self.running, start = True, time.process_time()
            try:
                return function(*given, **named)
            finally:
                self.running = False
                self.seconds += time.process_time() - start

        return call


def world(users: int, events: int, weeks: int) -> pd.DataFrame:
    """A log of `habits`, which ends on the Sunday of its last week."""
    rows = habits(users, events, weeks)
    log = pd.DataFrame(rows, columns=["user", "event", "week", "times"])
    days = pd.to_timedelta(log.week * 7 + pd.factorize(log.user)[0] % 7, unit="D")
    return log.assign(time=pd.Timestamp(START) + days)[["user", "event", "time"]]


def main() -> None:
    """Fits all weeks but the last, watches the update with it, and prints the share."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=3000)
    parser.add_argument("--events", type=int, default=300)
    parser.add_argument("--weeks", type=int, default=10)
    args = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    log = world(args.users, args.events, args.weeks)
    last = shift(START, args.weeks - 1)
    model = Recommender(progress=False).fit(log[log.time < last])
    watch = Stopwatch()
    for place, names in STEPS:
        for name in names:
            watch.watch(place, name)
    start = time.process_time()
    model.update(log)
    made = watch.seconds
    memory = model._memory  # noqa: SLF001
    assert isinstance(memory, Memory)
    with memory.open() as con:
        watch.counted(check_reasons)(con, last, rows=SAMPLE)
    week = time.process_time() - start
    print(f"a warm week of {args.users:,} users and {args.events:,} events: {week:.1f} processor seconds")
    print(
        f"reasons {made:.2f} ({made / week:.1%}), their check {watch.seconds - made:.2f}; together "
        f"{watch.seconds / week:.1%}"
    )


if __name__ == "__main__":
    main()
