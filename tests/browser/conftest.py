from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from selenium.webdriver import Chrome

from conf.schema import PipelineConfig
from ranking.pipeline.run import evaluate
from tests.browser.harness import Reader, chrome, explorer


@pytest.fixture(scope="session")
def driver() -> Iterator[Chrome]:
    """One browser for all tests; they are left out where there is none."""
    with chrome() as made:
        yield made


@pytest.fixture(scope="session")
def measured(trained: PipelineConfig) -> PipelineConfig:
    """Configuration of the finished run on the synthetic shop, evaluation included; not to be changed."""
    evaluate(trained, Console(quiet=True))
    return trained


@pytest.fixture(scope="session")
def address(driver: Chrome, measured: PipelineConfig) -> Iterator[str]:
    """Address of a running explorer of that run; views that need a server start one of their own."""
    with explorer(f"artifacts={Path(measured.work_dir) / 'artifacts'}") as running:
        yield running


@pytest.fixture
def reader(driver: Chrome, address: str) -> Reader:
    """Reads the pages of that explorer, on a desk and in light colours."""
    driver.delete_all_cookies()
    return Reader(driver, address)
