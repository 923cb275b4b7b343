"""One run at a time, whoever starts it: the UI, the daemon, the command line."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from filelock import FileLock, Timeout

from tgn_assets.state.warehouse import StateError

REMIND_SECONDS = 60.0
"""How often a run that waits says so."""


class RunLock(dg.ConfigurableResource):
    """Held for the whole of a run: a second one waits instead of writing beside the first."""

    path: str

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["RunLock"]:
        """Waits for the lock, holds it while the run's steps are executed, and releases it."""
        log = context.log.info if context.log else print
        run = f"run {context.run.run_id}" if context.run else "an asset"
        with hold(Path(self.path), f"{run} of process {os.getpid()}", log):
            yield self


def held_by(path: Path) -> str:
    """Who holds the lock file `path`, as `hold` was told; empty if nobody does."""
    if not path.exists():
        return ""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return path.read_text("utf-8") or "another run"
    lock.release()
    return ""


@contextmanager
def hold(path: Path, holder: str, log: Callable[[str], None]) -> Iterator[None]:
    """Holds the lock file `path`, which names the `holder`; waits as long as it takes, and logs for whom.

    StateError if this user may not lock it. The kernel releases it when its process ends, in whichever way;
    `run_launcher.py` mends Dagster's record of the run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path, poll_interval=0.5, thread_local=False)
    timeout = 0.0
    while not lock.is_locked:
        try:
            lock.acquire(timeout=timeout)
        except Timeout:
            log(f"waiting for {path.read_text('utf-8') or 'another run'}, which holds {path}")
            timeout = REMIND_SECONDS
        except OSError as error:
            raise StateError(f"{path} cannot be locked: {error.strerror}; give this user the right to") from None
    try:
        path.write_text(holder, "utf-8")
        yield
    finally:
        path.write_text("")
        lock.release()
