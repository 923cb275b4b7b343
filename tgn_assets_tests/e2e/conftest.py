"""A browser for each test file, a page for each test."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tgn_assets_tests.support.browser import SIZE, headless_chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with headless_chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """An empty page in a context of its own, closed at the end."""
    with browser.new_context(viewport=SIZE) as context:
        yield context.new_page()
