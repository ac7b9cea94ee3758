"""The row for Amazon Sports, on a small file in the raw format of the data set."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import benchmarks.results as results
from benchmarks.results import BASELINES, ROWS, measure
from benchmarks.runs import Run
from conf.composition.compose import compose_command
from conf.schema import PipelineConfig, SplitKind
from features.data.dataset import load_dataset
from features.data.splits import make_split
from features.prepare import prepare

QUIET = Console(quiet=True)
USERS, ITEMS = 30, 24


@pytest.fixture
def raw(tmp_path: Path) -> list[str]:
    """Return the overrides for raw files, gzipped: products as Python literals, reviews as JSON Lines."""
    rng = np.random.default_rng(0)
    items, events = (
        tmp_path / "meta_Sports_and_Outdoors.json.gz",
        tmp_path / "reviews_Sports_and_Outdoors_5.json.gz",
    )
    with gzip.open(items, "wt", encoding="utf-8") as file:
        for number in range(ITEMS + 1):  # the last one has no review
            product = {"asin": f"B{number:09d}", "title": f"Trekking pole no {number}", "price": 9.99}
            file.write(f"{product!r}\n")
    with gzip.open(events, "wt", encoding="utf-8") as file:
        for user in range(USERS):
            for place, item in enumerate(rng.permutation(ITEMS)[:5]):
                review = {
                    "reviewerID": f"A{user}", "asin": f"B{item:09d}", "overall": 4.0,
                    "unixReviewTime": 1_300_000_000 + 86_400 * place, "reviewText": "It holds.",
                }  # fmt: skip
                file.write(json.dumps(review) + "\n")
    return [f"data.items={items}", f"data.events={events}"]


def test_sports_is_measured_as_beauty_is() -> None:
    assert ROWS["sports"].overrides == ROWS["beauty"].overrides
    assert ROWS["sports"].metrics == ROWS["beauty"].metrics


def test_the_raw_files_of_sports_give_its_leave_one_out_queries(raw: list[str], tmp_path: Path) -> None:
    config: PipelineConfig = compose_command(
        "run", [*ROWS["sports"].overrides, BASELINES, *raw, f"work_dir={tmp_path / 'work'}"]
    )
    assert config.split.kind is SplitKind.leave_one_out
    assert config.evaluation.exclude_seen is True
    prepare(config, QUIET)
    dataset = load_dataset(tmp_path / "work" / "dataset")
    assert (dataset.events.users, len(dataset.events), len(dataset.catalogue)) == (USERS, 5 * USERS, ITEMS)
    assert dataset.kinds == ["purchase"]
    assert dataset.info["text_fields"] == ["title"]
    split = make_split(dataset, config.split, config.evaluation.target_events)
    assert len(split.test) == USERS
    assert len(split.test.targets) == USERS
    last = dataset.events.offsets[1:] - 1
    assert np.array_equal(split.test.targets, dataset.events.item[last])
    assert np.array_equal(split.valid.targets, dataset.events.item[last - 1])


def test_its_command_passes_the_row_s_settings_to_every_seed(
    raw: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[list[str], Path]] = []

    def run_once(overrides: list[str], work: Path, console: Console) -> Run:
        asked.append((overrides, work))
        raise KeyboardInterrupt  # before a training

    monkeypatch.setattr(results, "run_once", run_once)
    with pytest.raises(KeyboardInterrupt):
        measure("sports", ROWS["sports"], [*raw, "experiment=quick"], [2], tmp_path, QUIET)
    ((overrides, work),) = asked
    assert work == tmp_path / "sports" / "seed-2"
    assert overrides[: len(ROWS["sports"].overrides)] == list(ROWS["sports"].overrides)
    assert overrides[-1] == "seed=2"
    assert {"experiment=quick", *raw} <= set(overrides)
