"""A warm start through the steps of a run: what is taken over, what is not, what the bundle says of it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from conf.schema import PipelineConfig, Refit
from conf.warm import WarmConfig
from encoders.factors.affinity import Affinity
from encoders.training.train import text_contexts, train_encoder
from features.data.dataset import load_dataset
from features.data.splits import make_split
from features.data.training_windows import refit_cut
from ranking.bundle.bundle import load_bundle
from ranking.pipeline.publish import ARTIFACTS, publish
from ranking.pipeline.refit import refit
from ranking.scoring.ranker import Ranker
from ranking.training.train import train_ranker
from tests.synthetic import read_json


def carried_out(config: PipelineConfig, trained: PipelineConfig) -> str:
    """Train, refit and publish on the dataset of `trained`; return what was printed."""
    work = Path(config.work_dir)
    work.mkdir(parents=True)
    (work / "dataset").symlink_to(Path(trained.work_dir) / "dataset")
    console = Console(file=io.StringIO(), width=200)
    for step in (train_encoder, train_ranker, refit, publish):
        step(config, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def warm(trained: PipelineConfig, folder: Path, source: Path, **settings: Any) -> PipelineConfig:
    return replace(trained, work_dir=str(folder), warm_start=str(source), warm=WarmConfig(**settings))


def manifest_of(config: PipelineConfig) -> dict[str, Any]:
    return load_bundle(Path(config.work_dir) / ARTIFACTS).manifest


def test_all_parts_begin_with_the_weights_of_a_run(trained: PipelineConfig, tmp_path: Path) -> None:
    source = Path(trained.work_dir)
    config = warm(trained, tmp_path / "work", source, tower_epochs=1, ranker_epochs=1)
    text = carried_out(config, trained)
    assert "trained from the beginning" not in text
    manifest, before = manifest_of(config), manifest_of(trained)
    assert manifest["warm_start"]["parts"] == ["text_encoder", "towers", "ranker_towers", "ranker"]
    assert manifest["learned_until"] == before["learned_until"]
    assert before["warm_start"] == {"source": None, "parts": []}
    vectors = [np.load(folder / "encoder" / "text_vectors.npy") for folder in (source, tmp_path / "work")]
    assert np.array_equal(*vectors)
    reports: list[Any] = [
        read_json(folder / "ranker" / "training.json") for folder in (source, tmp_path / "work")
    ]
    cold, begun = (report["validation_ndcg@10"]["ranked"] for report in reports)
    assert begun >= cold - 0.05, "one epoch on top of trained weights, not one from the beginning"


def test_a_refit_trains_the_validated_weights_further(trained: PipelineConfig, tmp_path: Path) -> None:
    """Without an epoch they stay what they were, and the bundle says that they end there nevertheless."""
    config = replace(
        warm(
            trained, tmp_path / "work", Path(trained.work_dir), affinity_steps=3, tower_epochs=0,
            ranker_epochs=0,
        ),
        refit=Refit.before_test,
    )  # fmt: skip
    carried_out(config, trained)
    work = tmp_path / "work"
    data = load_dataset(work / "dataset")
    cut = refit_cut(data, make_split(data, config.split, []), config.refit)
    assert cut is not None
    affinity = Affinity.fit(
        np.load(work / "encoder" / "text_vectors.npy"), text_contexts(config, data, cut.end),
        replace(config.text_encoder, affinity_steps=3), config.seed, torch.device("cpu"),
    )  # fmt: skip
    refitted = Affinity.load(work / "refit" / "affinity.safetensors")
    assert affinity is not None
    assert refitted is not None
    assert np.array_equal(refitted.matrix, affinity.matrix)
    chosen, again = (Ranker.load(folder) for folder in (work / "ranker", work / "refit"))
    assert all(
        bool((value == again.state_dict()[name]).all())
        for name, value in chosen.state_dict().items()
        if name != "calibration"
    )
    manifest = manifest_of(config)
    assert manifest["learned_until"]["towers"] == manifest["data_end"]


def test_a_bundle_has_no_towers_for_the_training_lists(trained: PipelineConfig, tmp_path: Path) -> None:
    store = Path(trained.work_dir) / ARTIFACTS
    config = warm(trained, tmp_path / "work", store, tower_epochs=1, ranker_epochs=1)
    text = carried_out(config, trained)
    assert text.count("trained from the beginning") == 1
    assert "warm_start: ranker towers trained from the beginning: there are none" in text
    manifest = manifest_of(config)
    assert manifest["warm_start"]["source"] == (store / "CURRENT").read_text().strip()
    assert manifest["warm_start"]["parts"] == ["text_encoder", "towers", "ranker"]


@pytest.mark.parametrize(
    ("part", "line"),
    [
        ("text_encoder", "text encoder and towers are trained from the beginning: text_encoder.model is"),
        ("ranker", "ranking head is trained from the beginning: its layers differ"),
    ],
)
def test_what_cannot_be_taken_over_is_said_and_trained_by_its_own_settings(
    trained: PipelineConfig, tmp_path: Path, part: str, line: str
) -> None:
    config = warm(trained, tmp_path / "work", Path(trained.work_dir), tower_epochs=1, ranker_epochs=1)
    if part == "ranker":
        config = replace(config, ranker=replace(config.ranker, hidden=[8]))
    else:  # the same weights under another name
        other = tmp_path / "other_model"
        other.symlink_to(trained.text_encoder.model)
        config = replace(config, text_encoder=replace(config.text_encoder, model=str(other)))
    text = carried_out(config, trained)
    assert f"warm_start: {line}" in text
    parts = manifest_of(config)["warm_start"]["parts"]
    assert parts == (["text_encoder", "towers", "ranker_towers"] if part == "ranker" else ["ranker"])
    report = json.loads((tmp_path / "work" / "encoder" / "training.json").read_text())
    assert (len(report["stage_two"]["validation_recall"]) > 1) == (part == "text_encoder")
