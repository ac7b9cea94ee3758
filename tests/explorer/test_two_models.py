"""The view of two models over HTTP: a worse version beside the first one."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from rich.console import Console
from starlette.testclient import TestClient

from conf.schema import CandidateConfig, PipelineConfig, PublishConfig
from encoders.training.train import train_encoder
from explorer.app import create_app
from explorer.comparisons.background import choices
from explorer.context import ExplorerContext
from explorer.loading import store_loader
from ranking.bundle.store import current_version, versions
from ranking.pipeline.publish import publish
from ranking.training.train import train_ranker
from tests.explorer.storefront.test_guard import until

QUIET = Console(quiet=True)
BASE = "http://127.0.0.1"


@pytest.fixture(scope="module")
def work(trained: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work directory with two versions: the second lists popular items only."""
    work = tmp_path_factory.mktemp("two") / "work"
    shutil.copytree(trained.work_dir, work)
    only = CandidateConfig(
        user_vector=0, item_to_item=0, text_neighbours=0, repeat=0, co_purchase=0, new_items=0
    )
    changed = replace(trained, work_dir=str(work), candidates=only, publish=PublishConfig(map=False))
    for step in (train_encoder, train_ranker, publish):
        step(changed, QUIET)
    assert len(versions(work / "artifacts")) == 2
    return work


@pytest.fixture(scope="module")
def client(work: Path) -> TestClient:
    store = work / "artifacts"
    context = ExplorerContext(
        store=store, evaluation=work / "evaluation", loader=store_loader(store, "cpu", 1)
    )
    return TestClient(create_app(context), base_url=BASE)


def get(client: TestClient, path: str) -> Any:
    found: list[Any] = []

    def there() -> bool:
        found.append(client.get(path))
        return bool(found[-1].status_code != 202)

    until(there, 180)
    return found[-1]


def test_the_two_newest_versions_are_compared(client: TestClient, work: Path) -> None:
    page = get(client, "/two-models?queries=0")
    assert page.status_code == 200
    old, new = versions(work / "artifacts")
    assert [c.value for c in choices(work / "artifacts")] == [new, old]
    assert f'<option value="{old}" selected>' in page.text
    assert f'<option value="{new}" selected>' in page.text
    assert "Lists that change most" in page.text
    shown = re.search(r"(\d+) shoppers of the test window", page.text)
    assert shown is not None
    assert int(shown.group(1)) > 10
    sampled = get(client, "/two-models?queries=5")
    assert "5 shoppers of the test window" in sampled.text


def test_a_shopper_stands_in_both(client: TestClient, work: Path) -> None:
    page = get(client, "/two-models?queries=0")
    link = re.search(r'href="(/two-models/shopper\?[^"]+)"', page.text)
    assert link is not None
    one = get(client, link.group(1).replace("&amp;", "&"))
    assert one.status_code == 200
    assert one.text.count('<span class="place">') == 20
    assert "in the other list" in one.text
    missing = get(client, "/two-models/shopper?queries=0&user=nobody")
    assert missing.status_code == 404
    assert "has no query among the" in missing.text


def test_measured_lists_can_be_chosen(client: TestClient, work: Path, trained: PipelineConfig) -> None:
    folder = work / "evaluation" / "mine"
    folder.mkdir(parents=True)
    items = pl.read_parquet(work / "dataset" / "items.parquet")["item_id"].head(10)
    users = pl.read_parquet(work / "dataset" / "events.parquet")["user_id"].unique(maintain_order=True)
    frame = users.to_frame().join(pl.DataFrame({"item_id": items, "rank": range(1, 11)}), how="cross")
    frame.write_parquet(folder / "predictions.parquet")
    (folder / "metrics.json").write_text("{}")
    old, _ = versions(work / "artifacts")
    page = get(client, f"/two-models?a={old}&b=file:mine&queries=0")
    assert page.status_code == 200
    assert "lists of mine" in page.text
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("?a=2001&queries=0", 404, "is neither a version of this store nor a list measured with it"),
        ("?queries=many", 400, "is not a whole number"),
        ("?queries=-1", 400, "is not a whole number"),
    ],
)
def test_wrong_addresses_are_explained(client: TestClient, path: str, status: int, said: str) -> None:
    page = get(client, f"/two-models{path}")
    assert (page.status_code, said in page.text) == (status, True)


def test_one_version_alone_is_explained(trained: PipelineConfig) -> None:
    store = Path(trained.work_dir) / "artifacts"
    context = ExplorerContext(store=store, loader=store_loader(store, "cpu", 1))
    client = TestClient(create_app(context), base_url=BASE)
    page = get(client, "/two-models")
    assert page.status_code == 200
    assert "This store has 1 version, and nothing to compare with it" in page.text
    assert current_version(store) in page.text
