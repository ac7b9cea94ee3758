from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from conf.errors import InputError
from conf.schema import EvaluationConfig, PipelineConfig
from encoders.towers.towers import Towers
from features.data.dataset import LongArray, load_dataset
from features.data.splits import make_split
from ranking.baselines.registry import BaselineInputs, make_baselines
from ranking.baselines.sasrec import SasrecIds
from ranking.pipeline.run import evaluate
from ranking.training.ids_only import CHOSEN, ids_only_towers
from tests.ranking.baselines.test_registry import ask, make_events
from tests.synthetic import random_towers, read_json

QUIET = Console(quiet=True)


def test_lists_by_hand_and_who_is_asked_for_towers() -> None:
    events = make_events([[0, 1, 2], [3, 1], []])
    towers = random_towers(1, 5, 1)
    towers.item_tower.seen.copy_(towers.item_tower.seen.new_tensor([1, 1, 1, 1, 0]))
    calls: list[list[int]] = []

    def train(end: LongArray) -> Towers:
        calls.append(end.tolist())
        return towers

    baseline = SasrecIds(train)
    baseline.fit(events, np.array([2, 4, 5]), 0, 5)
    baseline.fit(events, np.array([3, 5, 5]), 1, 5)
    assert calls == [[2, 4, 5], [3, 5, 5]]
    queries = ask(events, [0, 1, 2])
    items, scores = baseline.recommend(events, queries, 5, exclude_seen=True)
    # Item 4 was never trained on: it comes last. Nobody's history: by popularity, item 1 twice, ties by row.
    assert items[0].tolist() == [3, 4, -1, -1, -1]
    assert items[1, 2] == 4
    assert set(items[1, :2].tolist()) == {0, 2}
    assert scores[1, 0] > scores[1, 1] > scores[1, 2]
    assert items[2].tolist() == [1, 0, 2, 3, 4]


def test_it_is_trained_once_kept_and_measured(trained: PipelineConfig, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    for folder in ("dataset", "encoder", "ranker", "artifacts"):
        (work / folder).symlink_to(Path(trained.work_dir) / folder)
    config = replace(
        trained,
        work_dir=str(work),
        evaluation=EvaluationConfig(bootstrap=10, baselines=["sasrec_ids", "frozen_text"]),
    )
    measured = evaluate(config, QUIET)
    metrics: dict[str, Any] = read_json(work / "evaluation" / "metrics.json")
    assert measured == metrics["valid"]["shelfwise"]["ndcg@10"]
    test = metrics["test"]
    assert isinstance(test, dict)
    assert list(test) == ["shelfwise", "user_tower", "sasrec_ids", "frozen_text"]
    assert 0 < test["sasrec_ids"]["recall@10"] <= 1
    assert not list((work / "checkpoints").glob("sasrec_ids*"))
    dataset = load_dataset(work / "dataset")
    split = make_split(dataset, config.split, [])
    kept = Towers.load(work / CHOSEN.folder)
    assert kept.item_tower.project is None
    weights = (work / CHOSEN.folder / "user_encoder.safetensors").stat().st_mtime_ns
    ids_only_towers(config, dataset, split, split.train_end, QUIET)
    assert (work / CHOSEN.folder / "user_encoder.safetensors").stat().st_mtime_ns == weights
    config = replace(config, evaluation=replace(config.evaluation, exclude_seen=True))
    ids_only_towers(config, dataset, split, split.train_end, QUIET)
    assert (work / CHOSEN.folder / "user_encoder.safetensors").stat().st_mtime_ns != weights


def test_it_needs_something_that_trains() -> None:
    with pytest.raises(InputError, match="sasrec_ids is trained, which only `evaluate` and `run` do"):
        make_baselines(["sasrec_ids"], BaselineInputs())
