"""Is every line of a CSV file accounted for?

DuckDB's parallel CSV reader can lose or repeat rows where one of its chunks begins near a malformed or a multi-line
record, and one stray quote can swallow the rest of a file, without an error (seen with 2.0.0; compare issues 13047 and
25164 of duckdb/duckdb). So what it read is compared with `count_lines`; where they differ, the file is read again from
a copy that holds only the records which `split_records` finds well-formed.
"""

import mmap
import re
from pathlib import Path

import numpy as np

CHUNK = 1 << 24
RUN = 1 << 16
"""Records that are copied at a time."""
LINE_SHOWN = 1000
"""Characters of an unreadable line that are kept."""


def count_lines(path: Path) -> int:
    """Physical lines that are not empty, ended by LF, CR or CRLF; the header counts."""
    lines, inside = 0, False
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            byte = np.frombuffer(chunk, np.uint8)
            content = (byte != 10) & (byte != 13)
            lines += int(np.count_nonzero(content[1:] > content[:-1])) + int(content[0] and not inside)
            inside = bool(content[-1])
    return lines


def split_records(path: Path, copy: Path, delimiter: str, columns: int, least: int | None = None) -> list[str]:
    """Writes the header and the well-formed records of `path` to `copy`; returns the lines that belong to none.

    Well-formed is a record of `columns` fields (or of `least` at least) as in RFC 4180, blanks around a quoted field
    allowed. Records end with LF in the copy. A quoted field may hold line ends; a quote that is not properly closed
    spoils its own line only.
    """
    record = _record(re.escape(delimiter.encode()), least or columns, columns)
    run, line_end = re.compile(rb"(?:%b|[\r\n]){0,%d}+" % (record, RUN)), re.compile(rb"[\r\n]|\Z")
    bad: list[str] = []
    with path.open("rb") as file, copy.open("wb") as out:
        if not path.stat().st_size:
            return bad
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            position = line_end.search(data).end()  # type: ignore[union-attr]  # \Z always matches
            out.write(data[:position].rstrip() + b"\n")
            while position < len(data):
                end = run.match(data, position).end()  # type: ignore[union-attr]  # so does an empty run
                if end > position:
                    out.write(_with_line_feeds(data[position:end]))
                else:
                    end = line_end.search(data, position).end()  # type: ignore[union-attr]
                    bad.append(shown(data[position:end].decode(errors="replace")))
                position = end
    return bad


def shown(line: str) -> str:
    """`line` as it is recorded: without its end, and not longer than `LINE_SHOWN`."""
    return line.strip("\r\n")[:LINE_SHOWN]


def _record(delimiter: bytes, least: int, columns: int) -> bytes:
    quoted = rb' *+"(?:[^"]|"")*+" *+'
    bare = rb'(?! *+")[^\r\n%b]*+' % delimiter
    field = rb"(?:%b|%b)" % (quoted, bare)
    return rb"%b(?:%b%b){%d,%d}(?:\r\n|[\r\n]|\Z)" % (field, delimiter, field, least - 1, columns - 1)


def _with_line_feeds(records: bytes) -> bytes:
    if b"\r" not in records:
        return records
    # Line ends inside quotes are part of a value.
    return re.sub(rb'"[^"]*+"|\r\n?', lambda match: match[0] if match[0][:1] == b'"' else b"\n", records)
