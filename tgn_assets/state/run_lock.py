"""One run at a time, whoever starts it: the UI, the daemon, the command line."""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg


class RunLock(dg.ConfigurableResource):
    """Held for the whole of a run: a second one waits instead of writing beside the first."""

    path: str

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["RunLock"]:
        say = context.log.info if context.log else print
        run = f"run {context.run.run_id}" if context.run else "an asset"
        with hold(Path(self.path), f"{run} of process {os.getpid()}", say):
            yield self


@contextmanager
def hold(
    path: Path, holder: str, say: Callable[[str], None], poll: float = 0.5, remind: float = 60.0
) -> Iterator[None]:
    """Holds the lock file `path` in the name of `holder`, waiting as long as it takes and saying for whom.

    The kernel releases the lock when its process ends, in whichever way: it needs no cleaning up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        said = -remind
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - said >= remind:
                    file.seek(0)
                    say(f"waiting for {file.read().strip() or 'another run'}, which holds {path}")
                    said = time.monotonic()
                time.sleep(poll)
        file.truncate(0)
        file.write(holder)
        file.flush()
        yield
        file.truncate(0)
