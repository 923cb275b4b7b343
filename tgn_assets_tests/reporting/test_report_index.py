"""reports/index.html: one row a week, with links that lead somewhere."""

import re
from pathlib import Path

import pytest

from tgn_assets.ml.connectors.text_file import replace_text
from tgn_assets.reporting.weekly_page.index import write_index
from tgn_assets.state.warehouse import Warehouse
from tgn_assets_tests.support.weekly_reports import LOG, MADE, WEEKS, page_of, warehouse

NONE = "\N{EN DASH}"


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    filled = warehouse(folder)
    for week in WEEKS[1:]:
        replace_text(folder / f"{week}.html", page_of(filled, week))
    write_index(folder, filled, source=LOG, made=MADE)
    return folder


def test_index_lists_the_weeks_that_have_a_page_newest_first(reports: Path) -> None:
    page = (reports / "index.html").read_text()
    assert re.findall(r'href="(\d.*?)\.html"', page) == WEEKS[:0:-1]
    newest, *_, oldest = re.findall(r"<tr><th scope=\"row\">.*</tr>", page)
    cells = re.findall(r"<td[^>]*>([^<]*)", newest)
    # two users and interactions, two rejected rows; NDCG 0.5 against 0.3 of repeat
    assert cells == ["0.5000", "better +0.2000", "2", "2", "2"]
    assert re.findall(r"<td[^>]*>([^<]*)", oldest) == [NONE, NONE, "2", "2", "0"]
    assert page.count("<svg") == 2 and "s3cret" not in page


def test_every_link_between_pages_leads_to_a_file(reports: Path) -> None:
    for page in reports.glob("*.html"):
        for name in re.findall(r'href="([^#"]*)"', page.read_text()):
            assert (reports / name).exists(), (page.name, name)
    assert f'href="{WEEKS[-2]}.html"' in (reports / f"{WEEKS[-1]}.html").read_text()


def test_index_without_a_score_has_no_chart(tmp_path: Path) -> None:
    filled = Warehouse(tmp_path / "warehouse.duckdb")
    with filled.writer() as con:
        con.execute("INSERT INTO ingested_weeks VALUES (?, 1, '1-0')", [WEEKS[0]])
    (tmp_path / f"{WEEKS[0]}.html").touch()
    write_index(tmp_path, filled, source=LOG, made=MADE)
    page = (tmp_path / "index.html").read_text()
    assert "<svg" not in page and "1 week, " in page
