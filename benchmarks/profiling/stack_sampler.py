"""Runs `tgn` and samples the stacks of its threads a hundred times a second, for `benchmarks.profiling.profile`.

    python -m benchmarks.profiling.stack_sampler OUT.json refresh --week 2024-01-22

It imports nothing heavy itself: the imports of `tgn` are a part of the profile.
"""

import gc
import json
import sys
import threading
import time
from types import FrameType

SECONDS_BETWEEN = 0.01
IDLE = {"wait", "_wait_for_tstate_lock", "select", "_worker"}
"""The functions in which a thread waits for another one or for work."""


class StackSampler(threading.Thread):
    """Samples the stacks of all other threads until `stop`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stacks: list[tuple[str, ...]] = []
        self.samples: list[tuple[float, float, list[int]]] = []  # moment, seconds since the last, numbers of stacks
        self._numbers: dict[tuple[str, ...], int] = {}
        self._stopped = threading.Event()

    def run(self) -> None:
        """Samples until `stop`."""
        before = time.time()
        while not self._stopped.wait(SECONDS_BETWEEN):
            now = time.time()
            stacks = [_stack(frame) for thread, frame in sys._current_frames().items() if thread != self.ident]
            self.samples.append((now, now - before, [self._number_of(stack) for stack in stacks if stack]))
            before = now

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()
        self.join()

    def _number_of(self, stack: tuple[str, ...]) -> int:
        if stack not in self._numbers:
            self._numbers[stack] = len(self.stacks)
            self.stacks.append(stack)
        return self._numbers[stack]


def _stack(frame: FrameType | None) -> tuple[str, ...]:
    """`module:function` from the outermost call to the innermost; () for a thread that waits."""
    if frame is not None and frame.f_code.co_name in IDLE:
        return ()
    names = []
    while frame is not None:
        names.append(f"{frame.f_globals.get('__name__', '')}:{frame.f_code.co_qualname}")
        frame = frame.f_back
    return tuple(reversed(names))


def main() -> None:
    """Runs `tgn` with the arguments after the first, which names the file for the samples."""
    out, *arguments = sys.argv[1:]
    sampler = StackSampler()
    sampler.start()
    from tgn_assets.cli.main import OBJECTS_PER_COLLECTION, cli

    gc.set_threshold(OBJECTS_PER_COLLECTION)
    try:
        cli(arguments, prog_name="tgn", standalone_mode=False)
    finally:
        sampler.stop()
        with open(out, "w", encoding="utf-8") as file:
            json.dump({"stacks": sampler.stacks, "samples": sampler.samples}, file)


if __name__ == "__main__":
    main()
