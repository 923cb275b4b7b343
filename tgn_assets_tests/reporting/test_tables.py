"""Tables in a given number of columns: whole numbers and dates, shortened ids, columns that are left out."""

import re
from io import StringIO

import pytest
from rich.cells import cell_len
from rich.console import Console

from tgn_assets.reporting.tables import Column, ResultTable, digits, shortened

COLUMNS = [
    Column("week", "week"),
    Column("user", "user"),
    Column("score", "score of the list", drop=1),
    Column("rows", "rows", drop=2),
]
ROWS = [
    {"week": "2024-01-01", "user": "customer-1234567890-1", "score": 0.000123, "rows": 1234567},
    {"week": "2024-01-08", "user": "customer-1234567890-2", "score": 0.25, "rows": None},
]


def lines(width: int | None, table: ResultTable = ResultTable("title", COLUMNS, ROWS)) -> list[str]:  # noqa: B008
    out = StringIO()
    for part in table.render(width):
        Console(file=out, width=1000).print(part)
    return out.getvalue().splitlines()


def test_everything_is_shown_where_there_is_room() -> None:
    for printed in (lines(None), lines(80)):
        text = "\n".join(printed)
        assert re.search(r"2024-01-01 +customer-1234567890-1 +0.00012 +1,234,567", text)
        assert "not shown" not in text


@pytest.mark.parametrize("width", range(24, 80))
def test_no_line_is_too_long_and_no_date_is_cut(width: int) -> None:
    printed = lines(width)
    table, note = (printed[:-1], printed[-1]) if "not shown" in printed[-1] else (printed, "")
    assert max(map(cell_len, table)) <= width
    text = "\n".join(table)
    assert "2024-01-01" in text and "2024-01-08" in text
    assert ("1,234,567" in text) != ("rows" in note)
    assert ("0.00012 " in text) != ("score of the list" in note)


def test_less_important_columns_go_first() -> None:
    assert "columns: rows;" in lines(45)[-1]
    assert "columns: score of the list, rows;" in lines(30)[-1]


def test_long_texts_keep_both_ends() -> None:
    text = "\n".join(lines(40))
    assert "-2" in text and "…" in text
    assert [shortened("東京タワーの前", width) for width in (14, 9, 4)] == ["東京タワーの前", "東京…の前", "東…"]


def test_a_table_of_numbers_alone_is_never_cut() -> None:
    table = ResultTable("t", [Column("a", "a"), Column("b", "b")], [{"a": 123456789, "b": 0.5}])
    assert any("123,456,789   0.5000" in line for line in lines(10, table))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.5, "0.5000"),
        (0.0, "0"),
        (0.00004, "0.000040"),
        (-0.00123, "-0.0012"),
        (3e-12, "3.0e-12"),
        (1e4, "10,000.0000"),
    ],
)
def test_small_scores_show_significant_digits(value: float, text: str) -> None:
    assert digits(value) == text


def test_a_reason_that_is_too_long_goes_on_in_the_next_line() -> None:
    reason = "had in 1 of the last 52 weeks, last on 2010-12-02"
    columns = [Column("event_id", "event"), Column("reason", "reason", wraps=True)]
    printed = lines(40, ResultTable("a list", columns, [{"event_id": "85123A", "reason": reason}]))
    assert max(map(cell_len, printed)) <= 40
    assert " ".join(" ".join(printed).split()).endswith(f" 85123A {reason}")
