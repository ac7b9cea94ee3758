"""The report of an evaluation, opened as a file: on a desk, on a phone, in the dark and in print."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium.webdriver import Chrome

from tests.browser.harness import ROOT, Reader

COMMITTED = sorted((ROOT / "docs" / "reports").glob("*.html"))
PRINTED_WIDTH = 695
"""Pixels of a line of A4 within the margins of the page."""


@pytest.fixture
def files(driver: Chrome) -> Reader:
    """Reads files of this machine."""
    driver.delete_all_cookies()
    return Reader(driver, "file://")


def unfold(files: Reader) -> None:
    files.driver.execute_script("document.querySelectorAll('details').forEach(part => part.open = true)")


def test_a_new_report_is_accessible_and_loads_nothing(files: Reader, work: Path) -> None:
    path = work / "evaluation" / "report.html"
    files.check_everywhere(str(path))
    unfold(files)
    files.check()
    headings = files.texts("h2")
    assert {"Systems", "Where are choices lost?", "Learning curves", "Three shoppers", "Protocol"} <= set(
        headings
    )


@pytest.mark.parametrize("path", COMMITTED, ids=[path.stem for path in COMMITTED])
def test_committed_reports_are_small_accessible_and_fit_a_phone(files: Reader, path: Path) -> None:
    assert path.stat().st_size < 750_000
    files.size(390)
    files.open(str(path))
    unfold(files)
    files.check()


@pytest.mark.parametrize("path", COMMITTED, ids=[path.stem for path in COMMITTED])
def test_nothing_is_cut_off_in_print(files: Reader, path: Path) -> None:
    files.open(str(path))
    tell = files.driver.execute_cdp_cmd
    try:
        tell("Emulation.setEmulatedMedia", {"media": "print"})
        metrics = {"width": PRINTED_WIDTH, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        tell("Emulation.setDeviceMetricsOverride", metrics)
        wide = files.driver.execute_script(
            "return [...document.querySelectorAll('table, svg')].filter(part => part.getClientRects().length)"
            ".filter(part => part.getBoundingClientRect().right > innerWidth + 1)"
            ".map(part => part.parentElement.getAttribute('aria-label') || part.outerHTML.slice(0, 80))"
        )
    finally:
        tell("Emulation.setEmulatedMedia", {"media": ""})
        files.size(1280)
    assert wide == [], wide
