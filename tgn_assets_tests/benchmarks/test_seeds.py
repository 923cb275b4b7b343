"""The table of seeds on the page on quality."""

from benchmarks.quality.seeds import HEAD, row, with_rows

PAGE = "text\n<!-- seeds: begin -->\n\n{}\n\n<!-- seeds: end -->\ntext | 5\n"


def test_a_row_has_mean_and_spread() -> None:
    assert row("log", [0.25, 0.3, 0.35]) == "| log | 0.3000 | 0.0500 (16.7%) | 0.2500, 0.3000, 0.3500 |"


def test_a_log_measured_again_takes_its_rows_place_and_the_others_stay() -> None:
    first, second, again = row("first", [0.2, 0.4]), row("second", [0.3, 0.5]), row("first", [0.3, 0.3])
    page = PAGE.format(with_rows(PAGE, [first, second]))
    assert with_rows(page, [again]) == "\n".join((*HEAD, again, second))
