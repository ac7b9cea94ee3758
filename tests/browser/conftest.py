from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from selenium.webdriver import Chrome

from conf.schema import PipelineConfig
from ranking.pipeline.run import evaluate
from serving.cli.story.server import copied_store, running_server
from tests.browser.harness import Reader, chrome, explorer


@pytest.fixture(scope="session")
def driver() -> Iterator[Chrome]:
    """One browser for all tests; they are left out where there is none."""
    with chrome() as made:
        yield made


@pytest.fixture(scope="session")
def work(driver: Chrome, trained: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work directory of a finished run on the synthetic shop, with evaluation: the explorer's own copy."""
    folder = tmp_path_factory.mktemp("explored") / "work"
    shutil.copytree(trained.work_dir, folder)
    evaluate(replace(trained, work_dir=str(folder)), Console(quiet=True))
    return folder


@pytest.fixture(scope="session")
def address(work: Path) -> Iterator[str]:
    """Address of a running explorer of that run."""
    with explorer(f"artifacts={work / 'artifacts'}") as running:
        yield running


@pytest.fixture(scope="session")
def server(work: Path) -> Iterator[str]:
    """Address of a running server on a copy of that run's bundle, with a state of its own."""
    with (
        copied_store(work / "artifacts") as store,
        running_server(store, Console(quiet=True)) as running,
    ):
        yield running


@pytest.fixture
def reader(driver: Chrome, address: str) -> Reader:
    """Reads the pages of that explorer, on a desk and in light colours."""
    driver.delete_all_cookies()
    return Reader(driver, address)
