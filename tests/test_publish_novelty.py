"""A bundle says how far new items may be moved up, also where its own catalogue holds none."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from conf.schema import PipelineConfig
from encoders.training.train import try_split
from features.data.dataset import Events, load_dataset
from features.data.training_windows import Cut
from ranking.bundle.bundle import load_bundle
from ranking.pipeline.publish import publish
from ranking.recommender import Recommender
from ranking.scoring.novelty import Novelty


def test_a_catalogue_without_new_items_is_looked_at_as_of_validation(
    trained: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    shutil.copytree(trained.work_dir, work)
    shutil.rmtree(work / "publish")
    table = Novelty((0.0, 1.0), (0.0, 2.0))
    asked: list[tuple[int, int]] = []

    def fit(recommender: Recommender, _: Events, cut: Cut, __: bool, ___: int) -> Novelty | None:
        asked.append((cut.time, int(recommender.arrays.statistics.now[0])))
        return table if len(asked) == 2 else None

    monkeypatch.setattr("ranking.pipeline.publish.fit_novelty", fit)
    config = replace(trained, work_dir=str(work))
    publish(config, Console(quiet=True))
    split = try_split(config, load_dataset(work / "dataset"))
    assert split is not None
    assert asked == [(split.state_time,) * 2, (split.train_time,) * 2], "statistics are of the same moment"
    recommender = load_bundle(work / "artifacts").recommender
    assert recommender.novelty == table
    assert recommender.novelty_budget == config.rerank.novelty
