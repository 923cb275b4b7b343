"""Runs `tgn` and writes down, a hundred times a second, what each of its threads is at. `benchmarks.profile` reads it.

    python -m benchmarks.stacks OUT.json refresh --week 2024-01-22

It imports nothing that `tgn` imports later: imports are a part of what is looked at.
"""

import gc
import json
import sys
import threading
import time
from types import FrameType

SECONDS_BETWEEN = 0.01
IDLE = {"wait", "_wait_for_tstate_lock", "select", "_worker"}
"""Where a thread is that waits for another or for work: nothing is computed there."""


class Watcher(threading.Thread):
    """Takes the stacks of all other threads until it is told to stop."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stacks: list[tuple[str, ...]] = []
        self.looks: list[tuple[float, float, list[int]]] = []  # moment, seconds since the last, stacks by number
        self._number: dict[tuple[str, ...], int] = {}
        self._stopped = threading.Event()

    def run(self) -> None:
        before = time.time()
        while not self._stopped.wait(SECONDS_BETWEEN):
            now = time.time()
            seen = [_stack(frame) for thread, frame in sys._current_frames().items() if thread != self.ident]
            self.looks.append((now, now - before, [self._numbered(stack) for stack in seen if stack]))
            before = now

    def stop(self) -> None:
        self._stopped.set()
        self.join()

    def _numbered(self, stack: tuple[str, ...]) -> int:
        if stack not in self._number:
            self._number[stack] = len(self.stacks)
            self.stacks.append(stack)
        return self._number[stack]


def _stack(frame: FrameType | None) -> tuple[str, ...]:
    """`module:function` from the outermost to the innermost; nothing for a thread that waits."""
    if frame is not None and frame.f_code.co_name in IDLE:
        return ()
    names = []
    while frame is not None:
        names.append(f"{frame.f_globals.get('__name__', '')}:{frame.f_code.co_qualname}")
        frame = frame.f_back
    return tuple(reversed(names))


def main() -> None:
    out, *arguments = sys.argv[1:]
    watcher = Watcher()
    watcher.start()
    from tgn_assets.cli.main import OBJECTS_PER_COLLECTION, cli

    gc.set_threshold(OBJECTS_PER_COLLECTION)
    try:
        cli(arguments, prog_name="tgn", standalone_mode=False)
    finally:
        watcher.stop()
        with open(out, "w", encoding="utf-8") as file:
            json.dump({"stacks": watcher.stacks, "looks": watcher.looks}, file)


if __name__ == "__main__":
    main()
