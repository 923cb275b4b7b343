import shutil

import pytest
from playwright.sync_api import Page

from tgn_assets_tests.support.browser import headless_chromium

pytestmark = pytest.mark.e2e


def test_a_page_does_what_its_script_says(page: Page) -> None:
    page.set_content("<button onclick=\"this.textContent = 'done'\">go</button>")
    page.get_by_role("button", name="go").click()
    assert page.get_by_role("button").text_content() == "done"


def test_without_a_browser_the_skip_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(pytest.skip.Exception, match="apt-get install chromium"), headless_chromium():
        pass
