"""Tables of results that fit a terminal: no date or number is cut, and the same rows are there as JSON."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import floor, isfinite, log10
from typing import Any

from rich.box import SIMPLE
from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from tgn_assets.ml.safe_text import printable

FRAME = 3
"""Cells that a column takes beside what is in it; the table takes one more."""
SHORT, SHORTEST = 12, 4
"""Cells that a text keeps while there are columns to drop, and that it always keeps."""
DATE = re.compile(r"\d{4}-\d\d-\d\d")


def digits(value: float) -> str:
    """`value` with four decimals, or with as many more as it takes to show two digits of a small one.

    >>> [digits(value) for value in (0.25, 0.00012345, 2.5e-9, 0.0, 1234.5)]
    ['0.2500', '0.00012', '2.5e-09', '0', '1,234.5000']
    """
    if not value or not isfinite(value):
        return f"{value:g}"
    if abs(value) < 1e-6:
        return f"{value:.1e}"
    return f"{value:,.{max(4, 1 - floor(log10(abs(value))))}f}"


def shown(value: Any) -> str:
    """How a value of a row is shown: whole numbers with thousands, others by `digits`, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return digits(value)
    return f"{value:,}" if isinstance(value, int) else printable(str(value))


def rows_of(count: int) -> str:
    """`count` with the word rows, or row.

    >>> rows_of(1), rows_of(1234)
    ('1 row', '1,234 rows')
    """
    return f"{count:,} row{'' if count == 1 else 's'}"


@dataclass(frozen=True)
class Column:
    """A column of a `ResultTable`: the key of its values in the rows, its title, and how a value is shown."""

    key: str
    title: str
    shown: Callable[[Any], str] = shown
    drop: int = 0
    """Where the terminal is too narrow, the column with the highest number goes first; 0 stays."""
    wraps: bool = False
    """Whether a text that is too long goes on in further lines, instead of losing its middle."""


@dataclass(frozen=True)
class ResultTable:
    """Rows by column key: numbers are numbers, None is nothing."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    bold: Collection[int] = ()
    """Positions of rows that stand out."""

    def render(self, width: int | None = None) -> Iterator[Table | str]:
        """The title, the table in at most `width` cells (None: as wide as it is), and which columns were left out.

        Long texts get an ellipsis, or are wrapped. Dates and numbers stay whole even if the table gets too wide.
        """
        cells = [[column.shown(row.get(column.key)) for row in self.rows] for column in self.columns]
        least = [partial(self._least, at, column) for at, column in enumerate(cells)]
        chosen, widths = _fit(self.columns, cells, least, width)
        table = Table(box=SIMPLE)
        for at in chosen:
            numbers = all(not isinstance(row.get(self.columns[at].key), str) for row in self.rows)
            title = Text(self.columns[at].title, no_wrap=False)
            wraps = self.columns[at].wraps
            table.add_column(title, width=widths[at], no_wrap=not wraps, justify="right" if numbers else "left")
        for number in range(len(self.rows)):
            texts = (
                Text(cell if self.columns[at].wraps else shortened(cell, widths[at]))
                for at, cell in ((at, cells[at][number]) for at in chosen)
            )
            table.add_row(*texts, style="bold" if number in self.bold else None)
        yield self.title
        yield table
        if left := [column.title for at, column in enumerate(self.columns) if at not in chosen]:
            yield (f"not shown in {width} columns: {', '.join(left)}; a wider terminal, a pipe or --json has them")

    def _least(self, at: int, cells: Sequence[str], keep: int) -> int:
        """How wide column `at` must be if a text keeps `keep` cells; its title may be spread over several lines."""
        column, sizes = self.columns[at], [1]
        for row, cell in zip(self.rows, cells, strict=True):
            value, size = row.get(column.key), cell_len(cell)
            sizes.append(min(size, keep) if isinstance(value, str) and not DATE.match(value) else size)
        return max(*sizes, *map(cell_len, column.title.split()), 1)


def _fit(
    columns: Sequence[Column], cells: Sequence[Sequence[str]], least: Sequence[Callable[[int], int]], width: int | None
) -> tuple[list[int], dict[int, int]]:
    """Which columns are shown, and how wide each of them is."""
    chosen = list(range(len(columns)))
    natural = {at: max(cell_len(columns[at].title), *map(cell_len, cells[at]), 1) for at in chosen}
    if width is None or _total(natural) <= width:
        return chosen, natural
    widths = {at: least[at](SHORT) for at in chosen}
    while _total(widths) > width and (droppable := [at for at in widths if columns[at].drop]):
        del widths[max(droppable, key=lambda at: (columns[at].drop, at))]
    if _total(widths) > width:
        widths = {at: least[at](SHORTEST) for at in widths}
    while _total(widths) < width and (narrow := [at for at in widths if widths[at] < natural[at]]):
        widths[min(narrow, key=lambda at: (widths[at], at))] += 1
    return list(widths), widths


def _total(widths: Mapping[int, int]) -> int:
    return sum(widths.values()) + FRAME * len(widths) + 1


def shortened(text: str, width: int) -> str:
    """`text` in at most `width` cells, with an ellipsis in place of its middle: ids often differ in their end only.

    >>> shortened("customer-000123", 10)
    'custo…0123'
    """
    if cell_len(text) <= width:
        return text
    head, tail = "", ""
    for grown in range(len(text)):
        longer = (head + text[len(head)], tail) if grown % 2 == 0 else (head, text[-len(tail) - 1] + tail)
        if cell_len("".join(longer)) + 1 > width:
            break
        head, tail = longer
    return f"{head}…{tail}"
