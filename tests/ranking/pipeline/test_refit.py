from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

import shelfwise
from conf.errors import InputError
from conf.schema import EvaluationConfig, PipelineConfig, Refit, SplitConfig, SplitKind
from encoders.training.fit_towers import seen_items
from features.data.dataset import Dataset, load_dataset
from features.data.splits import make_split
from ranking.bundle.bundle import load_bundle
from ranking.pipeline.publish import ARTIFACTS, publish
from ranking.pipeline.refit import refit
from ranking.pipeline.run import run
from tests.synthetic import read_json

QUIET = Console(quiet=True)


def begun(trained: PipelineConfig, folder: Path, refit: Refit) -> PipelineConfig:
    """Return the settings of a run that takes over what a finished one trained."""
    return replace(
        trained, work_dir=str(folder), refit=refit, reuse=[trained.work_dir],
        evaluation=EvaluationConfig(
            bootstrap=10, test=refit is not Refit.everything, baselines=["sasrec_ids"]
        ),
    )  # fmt: skip


def metrics_of(config: PipelineConfig) -> dict[str, Any]:
    return read_json(Path(config.work_dir) / "evaluation" / "metrics.json")


@pytest.fixture(scope="module")
def refitted(trained: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    config = begun(trained, tmp_path_factory.mktemp("refitted"), Refit.before_test)
    measured = run(config, QUIET)
    assert measured == metrics_of(config)["valid"]["shelfwise"]["ndcg@10"]
    return config


def test_the_bundle_knows_validation_and_nothing_of_test(refitted: PipelineConfig, dataset: Dataset) -> None:
    data = load_dataset(Path(refitted.work_dir) / "dataset")
    split = make_split(data, refitted.split, [])
    bundle = load_bundle(Path(refitted.work_dir) / ARTIFACTS)
    towers = bundle.recommender.towers
    assert towers is not None
    assert bundle.recommender.ranker is not None
    assert np.array_equal(towers.item_tower.seen.numpy(), seen_items(data, split.state_end))
    assert bundle.data_end == split.state_time


def test_validation_measures_the_models_before_the_refit(
    refitted: PipelineConfig, trained: PipelineConfig, tmp_path: Path
) -> None:
    plain = begun(trained, tmp_path, Refit.never)
    run(plain, QUIET)
    before, after = (metrics_of(c) for c in (plain, refitted))
    assert before["valid"] == after["valid"]
    for system in ("shelfwise", "user_tower", "sasrec_ids"):
        assert before["test"][system] != after["test"][system], system
    assert (before["protocol"]["refit"], after["protocol"]["refit"]) == ("never", "before_test")


def test_it_is_done_once_and_the_same_again(refitted: PipelineConfig, tmp_path: Path) -> None:
    folder = refit(refitted, QUIET)
    assert folder is not None
    written = {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}
    assert {"towers", "ranker.safetensors"} <= {p.name for p in folder.iterdir()}
    assert refit(refitted, QUIET) == folder
    assert {p: p.stat().st_mtime_ns for p in written} == written
    assert not list((Path(refitted.work_dir) / "checkpoints").glob("refit-*"))
    again = replace(refitted, work_dir=str(tmp_path), reuse=refitted.reuse)
    run(again, QUIET)
    for path in written:
        other = tmp_path / path.relative_to(refitted.work_dir)
        assert other.read_bytes() == path.read_bytes(), path.name


def test_everything_is_learned_for_production(trained: PipelineConfig, tmp_path: Path) -> None:
    config = begun(trained, tmp_path, Refit.everything)
    assert run(config, QUIET) == metrics_of(config)["valid"]["shelfwise"]["ndcg@10"]
    data = load_dataset(tmp_path / "dataset")
    bundle = load_bundle(tmp_path / ARTIFACTS)
    assert bundle.data_end == int(data.events.time.max())
    towers = bundle.recommender.towers
    assert towers is not None
    assert np.array_equal(towers.item_tower.seen.numpy(), seen_items(data, data.events.offsets[1:]))
    assert "test" not in metrics_of(config)


def test_publishing_without_the_refit_names_the_command(trained: PipelineConfig, tmp_path: Path) -> None:
    for folder in ("dataset", "encoder", "ranker"):
        (tmp_path / folder).symlink_to(Path(trained.work_dir) / folder)
    config = replace(trained, work_dir=str(tmp_path), refit=Refit.before_test)
    with pytest.raises(InputError, match="shelfwise refit"):
        publish(config, QUIET)
    assert not (tmp_path / ARTIFACTS).exists()


def test_under_leave_one_out_published_tables_are_followed(
    trained: PipelineConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dataset").symlink_to(Path(trained.work_dir) / "dataset")
    config = replace(
        trained, work_dir=str(tmp_path), refit=Refit.before_test, split=SplitConfig(SplitKind.leave_one_out)
    )
    assert refit(config, Console()) is None
    assert "the models stay as they are" in capsys.readouterr().out


def test_a_window_that_was_learned_from_cannot_be_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["shelfwise", "run", "refit=everything"])
    with pytest.raises(SystemExit) as stopped:
        shelfwise.main()
    assert stopped.value.code == 2
    assert "set evaluation.test=false" in capsys.readouterr().err


def test_the_command_is_there(refitted: PipelineConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[PipelineConfig] = []
    monkeypatch.setitem(shelfwise.COMMANDS, "refit", seen.append)
    monkeypatch.setattr("sys.argv", ["shelfwise", "refit", "work_dir=elsewhere"])
    shelfwise.main()
    assert seen[0].work_dir == "elsewhere"
    assert seen[0].refit is Refit.before_test
