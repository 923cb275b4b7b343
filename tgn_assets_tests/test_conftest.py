"""Where every real part is required, a skipped test is a failed one."""

import pytest

from tgn_assets_tests.conftest import REQUIRE_ALL, failed_if_skipped


def skipped() -> pytest.TestReport:
    where = ("test_browser.py", 3, "Skipped: no Chromium")
    return pytest.TestReport("test_browser.py::test", ("", 0, ""), {}, "skipped", where, "setup")


def test_a_skip_fails_with_its_reason_where_all_parts_are_required(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REQUIRE_ALL, "1")
    report = failed_if_skipped(skipped())
    assert report.failed
    assert "no Chromium" in str(report.longrepr)


def test_a_skip_stays_a_skip_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REQUIRE_ALL, raising=False)
    assert failed_if_skipped(skipped()).skipped
