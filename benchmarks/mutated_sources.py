"""Damaged sources: each is read to an end, or refused by an error of ours that names the file.

    python -m benchmarks.mutated_sources [--files N] [--seed S]

Small logs as CSV, JSON lines, a JSON array and Parquet, and a warehouse, are damaged: bits and bytes changed, pieces
cut out, repeated or swapped, quotes and delimiters put in. All is drawn from the seed and the number of the file.
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb

from tgn_assets.ml.data.ingest import load_weeks
from tgn_assets.ml.data.source_check import check_source
from tgn_assets.ml.schema import create_tables
from tgn_assets.ml.sources.extent import describe_source, source_digests
from tgn_assets.ml.sources.spec import SourceError, SourceSpec
from tgn_assets.ml.weeks import shift
from tgn_assets.state.warehouse import Warehouse, WarehouseError

FIRST, WEEKS, ROWS = "2024-01-01", 4, 300
ROWS_SQL = f"""
    SELECT 'user ' || n % 37 AS ip_address, 'event "' || n % 11 || '", é' AS event_id,
           TIMESTAMP '{FIRST} 00:00:00' + INTERVAL (n * {WEEKS * 7 * 24 * 60 // ROWS}) MINUTE AS timestamp,
           n * 0.5 AS price
    FROM range({ROWS}) AS t(n)
"""
WRITTEN = {
    "log.csv": "(FORMAT csv)",
    "log.jsonl": "(FORMAT json)",
    "log.json": "(FORMAT json, ARRAY true)",
    "log.parquet": "(FORMAT parquet, ROW_GROUP_SIZE 100)",
}
WAREHOUSE = "warehouse.duckdb"
PIECES = [
    b'"',
    b'""',
    b",",
    b";",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b"\xff",
    b"{",
    b"]",
    b"\\",
    b"NULL",
    b"1e999",
    b"-1",
    b"9" * 30,
]
PER_CHILD = 200
SECONDS = 30
"""What reading one may take."""
ACCEPTED = ("rows", "refused")


@dataclass(frozen=True)
class Outcome:
    """What became of a damaged file."""

    number: int
    name: str
    kind: str
    """rows, refused, or what was wrong."""
    text: str = ""


def try_files(numbers: range, seed: int) -> Iterator[Outcome]:
    """Damages a file for each of `numbers`, and reads it, in this process."""
    with tempfile.TemporaryDirectory(prefix="tgn-mutated-") as folder:
        whole = write_files(Path(folder))
        for number in numbers:
            draw = random.Random(f"{seed} {number}")
            name = draw.choice(sorted(whole))
            place = Path(folder, "damaged", name)
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(damaged(whole[name], draw))
            start = time.monotonic()
            kind, text = _outcome(lambda: read_warehouse(place) if name == WAREHOUSE else read_source(place), place)  # noqa: B023
            if time.monotonic() - start > SECONDS:
                kind = "too slow"
            yield Outcome(number, name, kind, text)


def write_files(folder: Path) -> dict[str, bytes]:
    """Whole files by name."""
    with duckdb.connect() as con:
        for name, options in WRITTEN.items():
            con.execute(f"COPY ({ROWS_SQL}) TO '{folder / name}' {options}")
    with Warehouse(folder / WAREHOUSE).writer() as con:
        _load(con, SourceSpec(str(folder / "log.csv")))
    whole = {name: (folder / name).read_bytes() for name in (*WRITTEN, WAREHOUSE)}
    return whole | {"log.csv.gz": gzip.compress(whole["log.csv"], mtime=0)}


def damaged(content: bytes, draw: random.Random) -> bytes:
    """`content` with up to five changes."""
    text = bytearray(content)
    for _ in range(draw.randint(1, 5)):
        draw.choice(CHANGES)(text, draw)
    return bytes(text)


def read_source(file: Path) -> int:
    """Reads all of it in every way; returns the number of rows that can be used."""
    spec = SourceSpec(str(file))
    extent = describe_source(spec)
    check = check_source(spec)
    source_digests(spec, [extent.first_week])
    with duckdb.connect() as con:
        create_tables(con)
        _load(con, spec)
    return check.rows


def read_warehouse(file: Path) -> int:
    """Reads all tables; returns the number of interactions."""
    with Warehouse(file, lock_timeout=1).reader() as con:
        tables = [name for (name,) in con.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return sum(len(con.execute(f"FROM {name}").fetchall()) for name in tables)


def _load(con: duckdb.DuckDBPyConnection, spec: SourceSpec) -> None:
    load_weeks(con, spec, [shift(FIRST, week) for week in range(WEEKS)], start_week=FIRST, end_week=None)


def _outcome(read: Callable[[], int], file: Path) -> tuple[str, str]:
    try:
        return "rows", str(read())
    except (SourceError, WarehouseError) as error:
        return ("refused" if file.name in str(error) else "file not named"), str(error)
    except Exception as error:  # noqa: BLE001  # it is what is looked for
        return type(error).__name__, str(error)


def _flip(text: bytearray, draw: random.Random) -> None:
    if text:
        text[draw.randrange(len(text))] ^= 1 << draw.randrange(8)


def _change(text: bytearray, draw: random.Random) -> None:
    if text:
        text[draw.randrange(len(text))] = draw.randrange(256)


def _change_at_end(text: bytearray, draw: random.Random) -> None:
    """In the last kilobyte, where Parquet keeps what it says of its columns."""
    if text:
        text[draw.randrange(max(len(text) - 1024, 0), len(text))] = draw.choice([0, 1, 127, 128, 255])


def _truncate(text: bytearray, draw: random.Random) -> None:
    del text[draw.randint(0, len(text)) :]


def _cut_out(text: bytearray, draw: random.Random) -> None:
    start = draw.randint(0, len(text))
    del text[start : start + draw.choice([1, 8, 200])]


def _repeat(text: bytearray, draw: random.Random) -> None:
    start = draw.randint(0, len(text))
    text[start:start] = text[start : start + draw.choice([1, 8, 200])]


def _put_in(text: bytearray, draw: random.Random) -> None:
    start = draw.randint(0, len(text))
    text[start:start] = draw.choice(PIECES)


def _swap(text: bytearray, draw: random.Random) -> None:
    """Two characters that structure text, in a piece of it."""
    one, other = draw.sample(b'",;\n\r\t:{}[]', 2)
    start = draw.randint(0, len(text))
    piece = slice(start, start + draw.choice([50, 5000]))
    text[piece] = text[piece].translate(bytes.maketrans(bytes([one, other]), bytes([other, one])))


CHANGES = (_flip, _change, _change_at_end, _truncate, _cut_out, _repeat, _put_in, _swap)


def in_children(files: int, seed: int) -> Iterator[Outcome]:
    """`try_files` in processes of their own, so that one that crashes is an outcome too."""
    start = 0
    while start < files:
        end = min(start + PER_CHILD, files)
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with os.fdopen(writing, "w") as out:
                for one in try_files(range(start, end), seed):
                    print(one.number, one.name, one.kind, ascii(one.text[:300]), sep="\t", file=out, flush=True)
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as lines:
            for line in lines:
                number, name, kind, text = line.rstrip("\n").split("\t")
                start = int(number) + 1
                yield Outcome(int(number), name, kind, text)
        _, status = os.waitpid(child, 0)
        if status or start < end:
            yield Outcome(start, "?", f"process ended with status {status}")
            start += 1


def main() -> int:
    """Prints a table of outcomes, and what was wrong; returns 1 if anything was."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    counts, wrong = Counter[tuple[str, str]](), list[Outcome]()
    for one in in_children(given.files, given.seed):
        counts[one.name, one.kind] += 1
        if one.kind not in ACCEPTED:
            wrong.append(one)
    print("| file | outcome | files |\n|---|---|---|")
    for (name, kind), count in sorted(counts.items()):
        print(f"| {name} | {kind} | {count} |")
    for one in wrong:
        print(f"file {one.number} of seed {given.seed}, {one.name}: {one.kind}: {one.text}")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
