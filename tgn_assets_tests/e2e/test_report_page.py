"""The weekly report as a reader has it: opened from a file, without a network, on a phone, in the dark."""

from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser

from tgn_assets.reporting.weekly_page.page import report_page, write_page
from tgn_assets_tests.support.weekly_reports import HOSTILE, WEEKS, warehouse

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_page(report_page(warehouse(folder), WEEKS[-1], {"trained_ranker": 72.4}, {}), folder / "report.html")
    return folder / "report.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [375, 1280])
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
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        assert dark == (scheme == "dark")
        shown = page.locator(".chart:visible svg:visible")
        assert shown.count() == page.locator(".chart").count() > 0
        assert page.get_by_text(HOSTILE, exact=True).count() > 0
        assert (console, requests) == ([], [report.as_uri()])


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


def test_the_report_prints_dark_on_white(browser: Browser, report: Path) -> None:
    with browser.new_context(color_scheme="dark") as context:
        page = context.new_page()
        page.goto(report.as_uri())
        page.emulate_media(media="print")
        assert (
            page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--page').trim()") == "#ffffff"
        )
        page.set_viewport_size({"width": 800, "height": 1100})  # about A4, less its margins
        assert page.evaluate("document.documentElement.scrollWidth") <= 800
        assert page.pdf().startswith(b"%PDF")
