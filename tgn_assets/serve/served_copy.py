"""What is published now: watches `current.duckdb`, reads each new one in a process of its own, and swaps it in."""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tgn_assets.ml.safe_text import safe_text
from tgn_assets.ml.weeks import week_number, week_of
from tgn_assets.serve.columns import NOTHING_PUBLISHED
from tgn_assets.serve.lists import WeekLists

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""How often the file is looked at: one system call."""
RETRY_SECONDS = 30.0
"""When a file that could not be read is tried again although it has not changed."""
LOAD_SECONDS = 900.0
"""After so long a process that reads a file is ended."""


class CannotLoad(Exception):
    """The file cannot be served: `reason` for everyone, the message for the log."""

    def __init__(self, reason: str, message: str = "") -> None:
        super().__init__(safe_text(message or reason))
        self.reason = reason


Identity = tuple[int, int, int, int]
"""Device, inode, size and time of a file (ns): another one if another lies under its name, or it was written to."""


@dataclass
class ServedCopy:
    """`lists` of the newest week of the file `path` that could be read; `problem` if they are not what it holds now."""

    path: Path
    lists: WeekLists | None = None
    published: float | None = None
    """When the file was written that `lists` are of (unix seconds)."""
    problem: str | None = "nothing was read yet"
    load_seconds: float = 0.0
    loads: Counter[str] = field(default_factory=lambda: Counter(ok=0, failed=0))
    _tried: Identity | None = None
    _retry_at: float = 0.0

    async def watch(self) -> None:
        """Goes on for ever, whatever happens to the file."""
        while True:
            await self.refresh()
            await asyncio.sleep(LOOK_SECONDS)

    async def refresh(self) -> None:
        """Serves what the file holds now, if it changed since the last call; if it is damaged, the old week stays."""
        try:
            identity = _identity(self.path)
            if identity == self._tried and (self.problem is None or time.monotonic() < self._retry_at):
                return
            self._tried, self._retry_at = identity, time.monotonic() + RETRY_SECONDS
            await self._load(identity)
        except CannotLoad as error:
            self._failed(error.reason, str(error))
        except OSError as error:
            self._failed("current.duckdb cannot be read", safe_text(str(error)))
        except Exception:
            self._failed("current.duckdb cannot be read", "an error that nobody expected")
            logger.exception("the service goes on with what it has")

    async def _load(self, identity: Identity | None) -> None:
        if identity is None:
            raise CannotLoad("there is no current.duckdb: nothing was published yet, or it was removed")
        began = time.monotonic()
        lists = await read_lists(self.path)
        self.load_seconds = time.monotonic() - began
        self.lists, self.published, self.problem = lists, identity[-1] / 1e9, None
        self.loads["ok"] += 1
        logger.info(
            "week %s is served, for the week of %s: %s users, %.0f MB, read in %.1f s",
            *(lists.week, lists.target_week, f"{lists.users:,}", lists.bytes / 1e6, self.load_seconds),
        )

    def _failed(self, reason: str, message: str) -> None:
        if self._tried is not None:
            self.loads["failed"] += 1
        if reason != self.problem:
            stays = f"; week {self.lists.week} stays" if self.lists else ""
            logger.warning("%s: %s%s", self.path, message, stays)
        self.problem = reason

    def health(self, now: datetime) -> dict[str, Any]:
        """What /healthz answers: ready if there is a week, degraded if it is not the one in the file."""
        lists, published = self.lists, self.published
        if lists is None or published is None:
            return {"status": "unavailable", "problem": self.problem}
        behind = week_number(week_of(now)) - week_number(lists.target_week)
        return {
            "status": "degraded" if self.problem else "ok",
            "problem": self.problem,
            "week": lists.week,
            "target_week": lists.target_week,
            "weeks_behind": max(behind, 0),
            "published_at": datetime.fromtimestamp(published, UTC).isoformat(timespec="seconds"),
            "age_seconds": max(round(now.timestamp() - published), 0),
            "users": lists.users,
        }


def _identity(path: Path) -> Identity | None:
    """That of the file `path`; None if there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


async def read_lists(path: Path) -> WeekLists:
    """The newest week of the file `path`; CannotLoad if it is damaged or has none.

    The bytes are in memory that no file system holds, and is freed with the lists.
    """
    descriptor = os.memfd_create("lists")
    try:
        await _compact(path, descriptor)
        if not os.fstat(descriptor).st_size:
            raise CannotLoad("current.duckdb cannot be read", "nothing was written")
        return WeekLists(memoryview(mmap.mmap(descriptor, 0, prot=mmap.PROT_READ)))
    finally:
        os.close(descriptor)


async def _compact(path: Path, descriptor: int) -> None:
    """Lets `tgn_assets.serve.compact` write the compact form to the open file `descriptor`."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "tgn_assets.serve.compact", str(path), str(descriptor)),
        pass_fds=(descriptor,),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for the service, which ends it
    )
    try:
        async with asyncio.timeout(LOAD_SECONDS):
            _, said = await process.communicate()
    except TimeoutError:
        raise CannotLoad("current.duckdb cannot be read", f"it took longer than {LOAD_SECONDS:.0f} s") from None
    finally:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode == NOTHING_PUBLISHED:
        raise CannotLoad("nothing is published: current.duckdb has no week")
    if process.returncode:
        message = said.decode(errors="replace").strip() or f"its reader ended with status {process.returncode}"
        raise CannotLoad("current.duckdb cannot be read", message)
