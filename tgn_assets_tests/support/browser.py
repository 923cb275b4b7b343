"""Headless Chromium for tests of pages. The fixtures `browser` and `page` use it.

`python -m tgn_assets_tests.support.browser PAGE` writes docs/images/report.png, the top of the weekly report PAGE.
"""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, FloatRect, Locator, Page, ViewportSize, expect, sync_playwright

IMAGES = Path(__file__).parents[2] / "docs" / "images"
TAKES_PICTURES = bool(os.environ.get("SCREENSHOTS"))
SIZE: ViewportSize = {"width": 1440, "height": 900}

# Chromium as root, on a machine that reaches nothing but itself.
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def headless_chromium() -> Iterator[Browser]:
    """The machine's own Chromium, closed at the end; without one the test is skipped, with the remedy.

    While it is open, this thread has an event loop: `asyncio.run` fails in it.
    """
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no Chromium: `apt-get install chromium`, or put Chrome on the PATH as google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def around(shown: Locator, margin: float) -> FloatRect:
    """The part of the page that contains all of `shown`, with up to `margin` pixels on each side.

    GitHub shows a picture in 830 pixels: what is wider gets small print.
    """
    boxes = [box for one in shown.all() if (box := one.bounding_box())]
    left, top = (max(0, min(box[axis] for box in boxes) - margin) for axis in ("x", "y"))
    size = shown.page.viewport_size or SIZE
    right = min(size["width"], max(box["x"] + box["width"] for box in boxes) + margin)
    bottom = min(size["height"], max(box["y"] + box["height"] for box in boxes) + margin)
    return {"x": left, "y": top, "width": right - left, "height": bottom - top}


def screenshot(page: Page, name: str, clip: FloatRect | None = None) -> None:
    """Writes docs/images/`name`.png, or the part `clip` of the page, if the environment has SCREENSHOTS.

    Tests leave the tree as it is otherwise.
    """
    if TAKES_PICTURES:
        IMAGES.mkdir(parents=True, exist_ok=True)
        expect(page.get_by_text("Loading...")).to_have_count(0, timeout=60_000)
        page.wait_for_timeout(1000)  # animations
        page.screenshot(path=IMAGES / f"{name}.png", clip=clip)


def main() -> None:
    """Takes the picture of a report, as wide as GitHub shows it."""
    width = 830
    with headless_chromium() as browser, browser.new_context(viewport={"width": width, "height": 900}) as context:
        page = context.new_page()
        page.goto(Path(sys.argv[1]).resolve().as_uri())
        below = page.locator("#loss").bounding_box()
        assert below
        clip: FloatRect = {"x": 0, "y": 0, "width": width, "height": below["y"] - 20}
        page.screenshot(path=IMAGES / "report.png", full_page=True, clip=clip)


if __name__ == "__main__":
    main()
