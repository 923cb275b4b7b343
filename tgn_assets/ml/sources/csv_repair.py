"""Is every line of a text file accounted for?

DuckDB's parallel CSV reader can lose or repeat rows where one of its chunks begins near a malformed or a multi-line
record, and one stray quote can swallow the rest of a file, without an error (seen with 2.0.0; compare issues 13047 and
25164 of duckdb/duckdb). It also holds a kilobyte in memory for each line that it rejects. So what it read is compared
with `count_lines`; where they differ, the file is read again from a copy that holds only the records which
`split_records` finds well-formed.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tgn_assets.ml.sources.spec import SourceError

CHUNK = 1 << 24
RUN = 1 << 16
"""Records that are copied at a time."""
LONGEST_RECORD = 2_000_000
"""Bytes that a record may have: a quote that is not closed within is an open one."""
LINE_SHOWN = 1000
"""Characters of an unreadable line that are kept."""
LINES_KEPT = 1000
"""Unreadable lines of a source whose text is kept; more are counted."""


@dataclass
class UnreadableLines:
    """Lines that are no record: how many there are, and the first of them, shortened."""

    count: int = 0
    first: list[str] = field(default_factory=list)
    by_file: Counter[str] = field(default_factory=Counter)
    """How many there are in each file, where that is known."""

    def add(self, line: bytes) -> None:
        """Adds a line."""
        self.extend(UnreadableLines(1, [line.decode(errors="replace")] if len(self.first) < LINES_KEPT else []))

    def extend(self, more: "UnreadableLines") -> None:
        """Adds all lines of `more`."""
        self.count += more.count
        self.by_file += more.by_file
        self.first += [line.strip("\r\n")[:LINE_SHOWN] for line in more.first[: LINES_KEPT - len(self.first)]]


def count_lines(path: Path) -> int:
    """Physical lines that are not empty, ended by LF, CR or CRLF; the header counts."""
    lines, inside = 0, False
    with path.open("rb") as file:
        for chunk in _chunks(file):
            byte = np.frombuffer(chunk, np.uint8)
            content = (byte != 10) & (byte != 13)
            lines += int(np.count_nonzero(content[1:] > content[:-1])) + int(content[0] and not inside)
            inside = bool(content[-1])
    return lines


def ends_with_a_line_end(path: Path) -> bool:
    """Whether the last line of a file with content is whole for certain."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() in (b"\r", b"\n")


def split_records(path: Path, copy: Path, delimiter: str, columns: int, least: int | None = None) -> UnreadableLines:
    """Writes the header and the well-formed records of `path` to `copy`; returns the lines that belong to none.

    Well-formed is a record of `columns` fields (or of `least` at least) as in RFC 4180, in UTF-8, blanks around a
    quoted field allowed. Records end with LF in the copy. A quoted field may hold line ends; a quote that is not
    properly closed spoils its own line only. Memory is bounded, whatever is in the file.
    """
    record = _record(re.escape(delimiter.encode()), least or columns, columns)
    return _split(path, copy, record, header=True)


def split_lines(path: Path, copy: Path) -> UnreadableLines:
    """Writes the lines of `path` that are text in UTF-8 to `copy`; returns the others. Memory is bounded."""
    return _split(path, copy, rb"[^\r\n]++(?:\r\n|[\r\n])", header=False)


def _split(path: Path, copy: Path, record: bytes, *, header: bool) -> UnreadableLines:
    run, one = re.compile(rb"(?:%b|[\r\n]){0,%d}+" % (record, RUN)), re.compile(rb"%b|[\r\n]" % record)
    bad = UnreadableLines()
    with path.open("rb") as file, copy.open("wb") as out:
        text = _Window(file)
        if header and (line := text.take_line()):
            out.write(line.rstrip() + b"\n")
        while text.fill():
            end = run.match(text.data, text.position).end()  # type: ignore[union-attr]  # an empty run always matches
            if end == text.position:
                bad.add(text.take_line())
                continue
            records = text.take(end)
            if not is_utf8(records):
                readable = list[bytes]()
                for match in one.finditer(records):
                    if is_utf8(match[0]):
                        readable.append(match[0])
                    else:
                        bad.add(match[0])
                records = b"".join(readable)
            out.write(_with_line_feeds(records))
    return bad


class _Window:
    """Text of a file from `position` on: `LONGEST_RECORD` bytes at least, or all that is left, ended by a line end."""

    def __init__(self, file: BinaryIO) -> None:
        self.data, self.position = b"", 0
        self._chunks, self._ended = _chunks(file), False

    def fill(self) -> bool:
        """Reads on if little is left; False if nothing is."""
        while not self._ended and len(self.data) - self.position < LONGEST_RECORD:
            chunk = next(self._chunks, b"")
            self.data, self.position = self.data[self.position :] + chunk, 0
            if not chunk:
                self._ended = True
                self.data += b"\n" if self.data and self.data[-1:] not in (b"\r", b"\n") else b""
        return self.position < len(self.data)

    def take(self, end: int) -> bytes:
        """What lies before `end`."""
        taken, self.position = self.data[self.position : end], end
        return taken

    def take_line(self) -> bytes:
        """The next line; of one that is too long, its beginning."""
        begin = b""
        while self.fill():
            found = LINE_END.search(self.data, self.position)
            taken = self.take(found.end() if found else len(self.data))
            begin = begin or taken[:LONGEST_RECORD]
            if found:
                break
        return begin


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    """The content of `file`. SourceError if it becomes shorter meanwhile."""
    size, read = os.fstat(file.fileno()).st_size, 0
    while chunk := file.read(CHUNK):
        read += len(chunk)
        yield chunk
    if read < size:
        raise SourceError(f"TGN_SOURCE: {file.name} became shorter while it was read: read it again once it is whole")


def is_utf8(text: bytes) -> bool:
    """Whether `text` is in UTF-8."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return False
    return True


LINE_END = re.compile(rb"\r\n|[\r\n]")


def _record(delimiter: bytes, least: int, columns: int) -> bytes:
    quoted = rb' *+"[^"]*+(?:""[^"]*+)*+" *+'
    bare = rb'(?! *+")[^\r\n%b]*+' % delimiter
    field = rb"(?:%b|%b)" % (quoted, bare)
    return rb"%b(?:%b%b){%d,%d}(?:\r\n|[\r\n])" % (field, delimiter, field, least - 1, columns - 1)


def _with_line_feeds(records: bytes) -> bytes:
    if b"\r" not in records:
        return records
    # Line ends inside quotes are part of a value.
    return re.sub(rb'"[^"]*+"|\r\n?', lambda match: match[0] if match[0][:1] == b'"' else b"\n", records)
