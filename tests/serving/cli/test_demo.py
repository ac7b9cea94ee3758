"""`shelfwise demo` on a run of the synthetic shop: its statements are true, and the run is unmodified."""

from __future__ import annotations

import hashlib
import io
import re
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from rich.console import Console

from conf.errors import InputError
from conf.schema import EvaluationConfig, PipelineConfig
from conf.serving import DemoConfig
from ranking.bundle.bundle import HISTORIES
from ranking.pipeline.run import evaluate
from serving.cli.demo import demo

PRODUCT = {"title": "trail boots summit", "brand": "Acme", "price": 12.5}


@pytest.fixture(scope="module")
def measured(trained: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Work directory of a run with its evaluation, including towers trained on ids alone."""
    work = tmp_path_factory.mktemp("demo") / "work"
    shutil.copytree(trained.work_dir, work)
    evaluation = EvaluationConfig(bootstrap=10, baselines=["popularity", "item_knn", "sasrec_ids"])
    evaluate(replace(trained, work_dir=str(work), evaluation=evaluation), Console(quiet=True))
    return work


def files_of(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def told(work: Path, **settings: object) -> str:
    said = io.StringIO()
    config = replace(DemoConfig(work_dir=str(work), product=PRODUCT, query="zzyzx"), **settings)  # type: ignore[arg-type]
    demo(config, Console(file=said, width=160))
    return said.getvalue()


def test_every_scene_is_told_and_the_run_stays_as_it_was(measured: Path) -> None:
    before = files_of(measured)
    text = told(measured)
    assert files_of(measured) == before
    assert [p.name for p in measured.iterdir() if p.name.startswith(".demo-")] == []
    headings = re.findall(r"^(\d) of 7: (.*?) ─", text, re.MULTILINE)
    assert [int(number) for number, _ in headings] == list(range(1, 8))
    flat = " ".join(text.split())
    # The product: added, found by its own words, and looked for in lists.
    assert "in a search for 'trail boots summit': place 1" in flat
    assert "bought none of them" in flat
    assert re.search(r"\d+ \(\d+%\)", flat)
    # The visitor: clicks change the list and leave nothing behind.
    assert "each on place 8 of the former list; 0 events were stored." in flat
    changed = re.search(r"The first changed (\d+) of 10 places, the second (\d+) of 10", flat)
    assert changed
    assert int(changed[1]) > 0
    assert "Answered from: popularity, then session only, then session only." in flat
    # The search: a word that no title has.
    assert "zzyzx in 0. No title has any of them" in flat
    # Without text: both systems that do not read, with what they were measured at.
    assert re.search(r"item_knn \(recall@10 0\.\d{4}\)", flat)
    assert re.search(r"sasrec_ids \(recall@10 0\.\d{4}\)", flat)
    assert "The product 'hedgehogs' of a moment ago has no purchase" in flat
    # The erasure: as many events as the shopper has in the file, which the run's own file still has.
    user = re.findall(r"shopper (u\d+): \d+ items bought", text)[2]
    rows = pl.read_parquet(measured / "artifacts" / HISTORIES).filter(pl.col("user_id") == user).height
    assert (
        f"DeleteUser took out {rows} stored events; {rows} rows of histories.parquet have become 0." in flat
    )
    assert "Shoppers known to the server: 60, then 59" in flat
    assert "is an anonymous visitor's, item by item." in flat
    assert f"shelfwise serve artifacts={measured / 'artifacts'}" in text


def test_a_shopper_who_is_not_known_is_one_line(measured: Path) -> None:
    with pytest.raises(InputError, match="users: 'nobody' has no stored history$"):
        told(measured, users=["nobody"])


def test_a_run_without_bundle_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="artifacts"):
        told(tmp_path)
