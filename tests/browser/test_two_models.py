from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console
from selenium.webdriver import Chrome

from conf.schema import PipelineConfig, PublishConfig, RerankConfig
from ranking.pipeline.publish import publish
from tests.browser.harness import Reader, explorer


@pytest.fixture(scope="module")
def models(
    driver: Chrome, trained: PipelineConfig, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Reader]:
    """Reads an explorer of a store with two versions, which differ in diversity."""
    work = tmp_path_factory.mktemp("models") / "work"
    shutil.copytree(trained.work_dir, work)
    changed = replace(
        trained, work_dir=str(work), rerank=RerankConfig(diversity=0.9), publish=PublishConfig(map=False)
    )
    publish(changed, Console(quiet=True))
    driver.delete_all_cookies()
    with explorer(f"artifacts={work / 'artifacts'}") as address:
        yield Reader(driver, address)


def test_two_versions_and_one_shopper_in_both(models: Reader) -> None:
    models.open("/two-models?queries=0")
    models.wait(lambda: models.all("table"))
    assert "of a list's first ten items are the same" in models.text(".lead")
    models.check()
    address = models.path
    models.one("a[href^='/two-models/shopper']").click()
    models.wait(lambda: len(models.all(".halves .item")) == 20)
    assert "in the other list" in models.text(".halves")
    shopper = models.path
    models.check()
    models.open(address)
    assert models.all("table"), "the address shows the same again, at once"
    for path in (address, shopper):
        models.check_everywhere(path)
