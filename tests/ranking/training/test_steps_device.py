"""Steps of the pipeline that train nothing run on a second device and give what the CPU gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import ranking.pipeline.run
import ranking.training.train
from conf.errors import InputError
from conf.schema import EvaluationConfig, PipelineConfig
from encoders.training.train import try_split
from features.data.dataset import load_dataset
from ranking.bundle.bundle import load_bundle
from ranking.pipeline.publish import publish
from ranking.pipeline.run import evaluate, run
from ranking.recommender import Recommender
from ranking.training.train import build_recommender, collect_examples
from tests.second_device import second_device
from tests.synthetic import read_json

QUIET = Console(quiet=True)


def run_on(monkeypatch: pytest.MonkeyPatch, device: torch.device) -> None:
    """Let every step resolve to a device."""
    for module in (ranking.training.train, ranking.pipeline.run):
        monkeypatch.setattr(module, "resolve_device", lambda _: device)


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """A second device that every step resolves to."""
    with second_device() as made:
        run_on(monkeypatch, made)
        yield made


def elsewhere(trained: PipelineConfig, work: Path, *folders: str) -> PipelineConfig:
    """A run in a folder of its own that begins with the outputs of a finished one."""
    work.mkdir()
    for folder in folders:
        (work / folder).symlink_to(Path(trained.work_dir) / folder)
    baselines = ["popularity", "item_knn", "frozen_text", "als", "ease"]
    return replace(
        trained, work_dir=str(work), evaluation=EvaluationConfig(bootstrap=10, baselines=baselines)
    )


def metrics(config: PipelineConfig) -> dict[str, Any]:
    measured = evaluate(config, QUIET)
    written: dict[str, Any] = read_json(Path(config.work_dir) / "evaluation" / "metrics.json")
    assert measured == written["valid"]["shelfwise"]["ndcg@10"]
    return written


@pytest.mark.usefixtures("device")
def test_evaluation_measures_what_it_measures_on_the_cpu(
    trained: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = ("dataset", "encoder", "ranker", "artifacts")
    there = metrics(elsewhere(trained, tmp_path / "there", *folders))
    run_on(monkeypatch, torch.device("cpu"))
    here = metrics(elsewhere(trained, tmp_path / "here", *folders))
    for window in ("valid", "test"):
        assert (
            there[window].keys() == here[window].keys() >= {"shelfwise", "user_tower", "frozen_text", "als"}
        )
        for system, expected in here[window].items():
            for name in ("recall@10", "ndcg@10", "mrr"):
                # A few dozen queries: where rounding makes two items change places, one may enter a list.
                assert there[window][system][name] == pytest.approx(expected[name], abs=0.03), (system, name)


@pytest.mark.usefixtures("device")
def test_a_bundle_published_there_is_loaded_on_the_cpu(trained: PipelineConfig, tmp_path: Path) -> None:
    config = elsewhere(trained, tmp_path / "there", "dataset", "encoder", "ranker")
    publish(config, QUIET)
    made = load_bundle(Path(config.work_dir) / "artifacts").recommender
    first = load_bundle(Path(trained.work_dir) / "artifacts").recommender
    np.testing.assert_allclose(made.arrays.item_vectors, first.arrays.item_vectors, atol=1e-5)
    assert made.towers is not None
    assert first.towers is not None
    for name, values in first.towers.state_dict().items():
        assert torch.equal(made.towers.state_dict()[name], values), name


def test_examples_are_those_of_the_cpu(
    trained: PipelineConfig, monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    places: list[torch.device] = []

    def built(*given: Any, **named: Any) -> Recommender:
        made = build_recommender(*given, **named)
        assert made.towers is not None
        places.append(next(made.towers.parameters()).device)
        return made

    monkeypatch.setattr(ranking.training.train, "build_recommender", built)
    dataset = load_dataset(Path(trained.work_dir) / "dataset")
    split = try_split(trained, dataset)
    assert split is not None
    there = collect_examples(trained, dataset, split, QUIET)
    assert set(places) == {device}
    run_on(monkeypatch, torch.device("cpu"))
    here = collect_examples(trained, dataset, split, QUIET)
    for found, expected in zip(there, here, strict=True):
        assert found is not None
        assert expected is not None
        assert len(found) == len(expected) > 0
        assert found.features.shape == expected.features.shape
        assert (found.chosen == expected.chosen).mean() > 0.99
        close = np.isclose(found.features, expected.features, rtol=1e-3, atol=1e-3)
        assert close.mean() > 0.99


def test_a_run_names_its_device_before_anything_else(
    trained: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(trained, work_dir=str(tmp_path / "work"))
    begun: list[str] = []

    def prepare(_: object, console: Console) -> None:
        begun.append(console.export_text())
        raise InterruptedError

    monkeypatch.setattr(ranking.pipeline.run, "prepared", prepare)
    with pytest.raises(InterruptedError):
        run(replace(config, device="cpu"), Console(record=True, file=StringIO()))
    assert begun[0].splitlines()[0] == "device: cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="device=cuda: torch .* set device=cpu or device=auto"):
        run(replace(config, device="cuda"), QUIET)
    assert len(begun) == 1
    assert not (tmp_path / "work").exists()
