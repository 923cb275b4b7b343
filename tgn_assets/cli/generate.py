"""Writes the synthetic world as CSV."""

import os
import sys
import time
from typing import TextIO

from tgn_assets.ml.sources.synthetic import World, generate_week
from tgn_assets.ml.weeks import shift

COLUMNS = {"user_id": "ip_address", "event_id": "event_id", "ts": "timestamp"}
"""The world's columns, and their default names in the settings."""


def write_csv(out: TextIO, start_week: str, weeks: int, seed: int) -> None:
    """Write `weeks` weeks from `start_week` on to `out`; ends quietly if the reader closes it."""
    world, printed = World(seed=seed), time.monotonic()
    try:
        for done in range(weeks):
            rows = generate_week(shift(start_week, done), world).rename(columns=COLUMNS)
            rows.to_csv(out, columns=list(COLUMNS.values()), header=done == 0, index=False, lineterminator="\n")
            if time.monotonic() - printed > 5:
                print(f"{done + 1} of {weeks} weeks", file=sys.stderr)
                printed = time.monotonic()
        out.flush()
    except BrokenPipeError:
        # Otherwise the interpreter flushes stdout once more when it ends, and prints the same error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), out.fileno())
