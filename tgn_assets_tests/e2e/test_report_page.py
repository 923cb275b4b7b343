"""The weekly report as a reader has it: opened from a file, without a network, on a phone, in the dark."""

from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser

from tgn_assets.ml.connectors.text_file import replace_text
from tgn_assets.reporting.weekly_page.index import write_index
from tgn_assets_tests.support.weekly_reports import HOSTILE, LOG, MADE, WEEKS, page_of, warehouse

pytestmark = pytest.mark.e2e

CUT = """[...document.querySelectorAll(".scroll")].filter(box => box.scrollWidth > box.clientWidth)
         .map(box => box.textContent)"""
"""The tables of which a part can only be seen by scrolling sideways."""


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    filled = warehouse(folder)
    for page in (folder / f"{name}.html" for name in ("report", *WEEKS)):
        replace_text(page, page_of(filled))
    write_index(folder, filled, source=LOG, made=MADE)
    return folder / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 820, 1400])
def test_the_report_fits_the_screen_and_loads_nothing(
    browser: Browser, report: Path, scheme: Literal["light", "dark"], width: int
) -> None:
    with browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True) as context:
        page, console, requests = context.new_page(), list[str](), list[str]()
        page.on("console", lambda message: console.append(message.text))
        page.on("pageerror", lambda error: console.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(report.as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.locator("summary").first.click()
        assert page.evaluate(CUT) == []
        verdict = page.get_by_role("cell", name="better +0.2000").bounding_box()
        assert verdict and verdict["x"] + verdict["width"] <= width
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")
        assert page.locator(".chart").count() > 0
        assert all(chart.locator("svg:visible").count() for chart in page.locator(".chart").all())
        assert 0 in [page.locator(f"{shown}:visible").count() for shown in (".wide", ".narrow")]
        assert page.get_by_text(HOSTILE, exact=True).count() > 0
        assert (console, requests) == ([], [report.as_uri()])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_list_of_weeks_fits_a_phone(browser: Browser, report: Path, scheme: Literal["light", "dark"]) -> None:
    with browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme) as context:
        page = context.new_page()
        page.goto(report.with_name("index.html").as_uri())
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.evaluate(CUT) == []
        page.get_by_role("link", name=WEEKS[-1]).click()
        assert page.url == report.with_name(f"{WEEKS[-1]}.html").as_uri()


def test_the_report_works_with_the_keyboard(browser: Browser, report: Path) -> None:
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(report.as_uri())
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
        page.keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "main"
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert page.locator("details").first.get_attribute("open") is not None


def test_the_report_prints_dark_on_white_with_whole_tables(browser: Browser, report: Path) -> None:
    with browser.new_context(color_scheme="dark") as context:
        page = context.new_page()
        page.goto(report.as_uri())
        page.emulate_media(media="print")
        assert (
            page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--page').trim()") == "#ffffff"
        )
        page.set_viewport_size({"width": 680, "height": 1000})  # A4, less its margins
        assert page.evaluate("document.documentElement.scrollWidth") <= 680
        assert page.evaluate(CUT) == []
        drawn = "[...document.querySelectorAll('*')].map(part => getComputedStyle(part))"
        grounds = f"new Set({drawn}.map(style => style.backgroundColor))"
        assert set(page.evaluate(f"[...{grounds}]")) <= {"rgba(0, 0, 0, 0)", "rgb(255, 255, 255)"}
        split = f"{drawn}.filter(style => style.display == 'table' && style.breakInside != 'avoid').length"
        assert page.evaluate(split) == 0
        assert page.pdf().startswith(b"%PDF")
