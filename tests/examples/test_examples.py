"""The scripts in `examples/` run as their first lines say, and print what is true."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import polars as pl
import pytest

from examples.evaluation import K, recall
from examples.own_source import SameCategory
from features.data.histories import batch_histories
from ranking.retrieval.limits import Limits
from tests.synthetic import read_json

ROOT = Path(__file__).parents[2]


def script(name: str, *arguments: str) -> str:
    """Return what an example prints."""
    command = [sys.executable, str(ROOT / "examples" / name), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, bert: Path) -> tuple[Path, str]:
    """The folder and the output of `own_data.py`, with an encoder of a few weights and few baselines."""
    folder = tmp_path_factory.mktemp("own") / "shop"
    few = ("evaluation.baselines=[item_knn]", "user_encoder.epochs=1", "factors.iterations=2")
    return folder, script("own_data.py", str(folder), f"text_encoder.model={bert}", *few)


def test_own_data_writes_tables_and_prints_what_was_measured(shop: tuple[Path, str]) -> None:
    folder, output = shop
    items = pl.read_csv(folder / "items.csv")
    assert items.height == 108
    assert items["item_id"].n_unique() == items["title"].n_unique() == 108
    events = pl.read_csv(folder / "events.csv")
    assert set(events["item_id"]) <= set(items["item_id"])
    assert pl.read_parquet(folder / "dataset" / "rejects.parquet").height == 0
    test = read_json(folder / "evaluation" / "metrics.json")["test"]
    assert isinstance(test, dict)
    printed = dict(re.findall(r"^(\w+) +recall@10 ([\d.]+)$", output, re.MULTILINE))
    assert printed == {name: f"{row['recall@10']:.4f}" for name, row in test.items()}
    assert {"shelfwise", "item_knn"} <= printed.keys()


def test_evaluation_arrives_at_the_same_recall(shop: tuple[Path, str]) -> None:
    folder, _ = shop
    output = script("evaluation.py", str(folder))
    test = read_json(folder / "evaluation" / "metrics.json")["test"]
    assert isinstance(test, dict)
    measured = f"{test['shelfwise']['recall@10']:.4f}"
    assert re.search(rf"^shelfwise +{measured} \(", output, re.MULTILINE)
    assert output.splitlines()[-1] == f"recall@10 computed again from the lists: {measured}"


def test_recall_is_the_mean_share_of_what_users_with_a_list_chose() -> None:
    lists = pl.DataFrame({"user_id": ["a", "a", "b"], "rank": [1, K + 1, K], "item_id": ["x", "y", "z"]})
    chosen = pl.DataFrame({"user_id": ["a", "a", "b", "stranger"], "item_id": ["x", "y", "z", "x"]})
    assert recall(lists, chosen) == 0.75  # a: one of two (y lies behind the first K), b: one of one


@pytest.fixture
def address(shop: tuple[Path, str]) -> Iterator[str]:
    """Where the shop's model is served."""
    folder, _ = shop
    command = [sys.executable, "-m", "shelfwise", "serve", f"artifacts={folder}/artifacts", "port=0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    watchdog = threading.Timer(200.0, process.kill)
    watchdog.start()
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(r"listening on (\S+:\d+)", line):
                yield found[1]
                break
        else:
            raise AssertionError("".join(lines))
    finally:
        watchdog.cancel()
        process.terminate()
        process.communicate(timeout=60)


def test_client_sees_a_click_in_the_next_list(address: str) -> None:
    lines = script("client.py", address).splitlines()
    assert lines[0] == "a new visitor (answered from: popularity)"
    clicked = re.fullmatch(r"a click on '(.+)': 1 event stored", lines[6])
    assert clicked is not None
    assert lines[5].split(maxsplit=1)[1] == clicked[1]
    assert lines[7].startswith("the next list (answered from: ")
    assert lines[7] != "the next list (answered from: popularity)"
    assert lines[1:6] != [line[: len(old)] for line, old in zip(lines[8:13], lines[1:6], strict=True)]
    assert lines[13].startswith(f"a search for '{clicked[1]}': {clicked[1]}")


@pytest.mark.parametrize("name", ["own_data.py", "client.py", "evaluation.py", "own_source.py"])
def test_without_arguments_the_usage_is_printed(name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name)],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"usage: python examples/{name} ")


def test_a_source_of_ones_own_proposes_beside_the_others(shop: tuple[Path, str]) -> None:
    folder, _ = shop
    lines = script("own_source.py", str(folder)).splitlines()
    assert lines[0] == "3 categories, 150 shoppers"
    mean = {line.split()[0]: float(line.split()[1]) for line in lines[1:-1]}
    assert mean["same_category"] == 20.0  # each category has 36 items, and every shopper has a history
    assert mean["popular"] == 100.0
    said = re.fullmatch(
        r"(\d+) candidates of same_category, (\d+) of them proposed by no other source", lines[-1]
    )
    assert said is not None
    assert int(said[1]) == 150 * 20
    assert 0 <= int(said[2]) < int(said[1])


def test_the_source_of_ones_own_chooses_by_category_popularity_and_limits() -> None:
    source = SameCategory(np.array([0, 1, 0, 1, 0], np.int32))
    # the newest items: row 1 of category 1, row 4 of category 0, none
    batch = batch_histories(
        [np.array([0, 1]), np.array([4]), np.zeros(0, int)],
        [np.zeros(2, np.int8), np.zeros(1, np.int8), np.zeros(0, np.int8)],
        [np.array([5, 6]), np.array([7]), np.zeros(0, int)],
        now=[9, 9, 9],
    )
    limits = Limits(np.array([1 * 5 + 2]), [None] * 3)  # the second query must not get row 2
    indexes = SimpleNamespace(by_popularity=np.array([3, 2, 1, 0, 4], np.int32))
    request = MagicMock(batch=batch, limits=limits, indexes=indexes, items=5)
    request.__len__.return_value = 3
    found = source.propose(request, 3)
    assert found.rows.tolist() == [[3, 1, -1], [0, 4, -1], [-1, -1, -1]]
