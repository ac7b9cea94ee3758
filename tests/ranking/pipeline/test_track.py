"""Trackers: what MLflow and Weights & Biases have of a run, read back from their own stores."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import encoders.training.tracking as tracking_module
from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.schema import EvaluationConfig, PipelineConfig, SplitKind, TrackerConfig
from conf.tracking import TrackerKind
from encoders.training.curves import read_curves
from encoders.training.tracking import LOCAL_STORE, parameters, run_name, tracked_run
from ranking.bundle.store import current_version
from ranking.pipeline.run import run
from ranking.pipeline.track import final_metrics, tracking
from tests.synthetic import World, pipeline_config

pytestmark = pytest.mark.filterwarnings(
    "ignore::sqlalchemy.exc.SADeprecationWarning",  # MLflow's own, with the newest SQLAlchemy
    "ignore::DeprecationWarning:mlflow.*",
    "ignore::FutureWarning:mlflow.*",
)
QUIET = Console(quiet=True)
BLOCK = 32_768
"""Bytes of a block in a file of Weights & Biases, which has LevelDB's log format."""


def settings(config: PipelineConfig, folder: Path, tracker: TrackerConfig) -> PipelineConfig:
    return replace(
        config,
        work_dir=str(folder),
        tracker=tracker,
        evaluation=EvaluationConfig(bootstrap=10, baselines=["popularity"]),
    )


@pytest.fixture(scope="module")
def base(world: World, bert: Path, tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    return pipeline_config(world, bert, tmp_path_factory.mktemp("tracked"), SplitKind.global_time)


@pytest.fixture(scope="module")
def in_mlflow(base: PipelineConfig, tmp_path_factory: pytest.TempPathFactory) -> PipelineConfig:
    """Return the configuration of a run that MLflow has in a file of its own."""
    pytest.importorskip("mlflow")
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # artifacts go to a folder beside the store
        tracker = TrackerConfig(TrackerKind.mlflow, project="shop", uri=f"sqlite:///{folder}/runs.db")
        config = settings(base, folder / "first", tracker)
        run(config, QUIET)
    return config


def mlflow_runs(config: PipelineConfig) -> Any:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(config.tracker.uri)
    experiment = client.get_experiment_by_name(config.tracker.project)
    assert experiment is not None
    return client, client.search_runs([experiment.experiment_id])


def test_mlflow_has_settings_steps_results_and_files(in_mlflow: PipelineConfig, tmp_path: Path) -> None:
    client, runs = mlflow_runs(in_mlflow)
    assert [(r.info.run_name, r.info.status) for r in runs] == [("first", "FINISHED")]
    (found,) = runs
    assert found.data.params["user_encoder.dim"] == "16"
    assert found.data.params["split.kind"] == "global_time"
    assert json.loads(found.data.params["evaluation.baselines"]) == ["popularity"]
    work = Path(in_mlflow.work_dir)
    result = json.loads((work / "evaluation" / "metrics.json").read_text())
    recall = result["test"]["shelfwise"]["recall@10"]
    assert found.data.metrics["test/shelfwise/recall_at_10"] == pytest.approx(recall)
    assert found.data.metrics["valid/popularity/mrr"] == pytest.approx(result["valid"]["popularity"]["mrr"])
    version = current_version(work / "artifacts")
    assert found.data.tags["bundle_version"] == version
    assert version.endswith(f"-{found.data.tags['bundle_hash']}")
    assert found.data.tags["dataset_hash"] == result["protocol"]["dataset_hash"]
    stored = {a.path for a in client.list_artifacts(found.info.run_id)}
    assert stored == {"report.html", "metrics.json"}
    page = client.download_artifacts(found.info.run_id, "report.html", str(tmp_path))
    assert Path(page).read_bytes() == (work / "evaluation" / "report.html").read_bytes()


@pytest.mark.parametrize(
    ("prefix", "folder", "curve", "metric"),
    [
        ("text_encoder", "encoder", "text_encoder", "valid_recall"),
        ("towers", "encoder", "towers", "valid_recall"),
        ("ranker", "ranker", "ranker", "valid_ndcg"),
    ],
)
def test_mlflow_has_the_curve_of_every_training(
    in_mlflow: PipelineConfig, prefix: str, folder: str, curve: str, metric: str
) -> None:
    client, (found,) = mlflow_runs(in_mlflow)
    kept = read_curves(Path(in_mlflow.work_dir) / folder)[curve]
    points = client.get_metric_history(found.info.run_id, f"{prefix}/{metric}")
    in_order = [p.value for p in sorted(points, key=lambda p: p.step)]
    assert in_order == pytest.approx([value for _, value in kept.validation])
    losses = client.get_metric_history(found.info.run_id, f"{prefix}/loss")
    assert losses, "logged at every tenth step"
    # Lightning counts steps from 0.
    by_step = {p.step + 1: p.value for p in losses}
    shared = [step for step, _ in kept.loss if step in by_step]
    assert shared
    assert all(math.isclose(dict(kept.loss)[step], by_step[step], rel_tol=1e-5) for step in shared)


def test_a_second_run_is_another_one_and_a_failed_one_is_continued(
    in_mlflow: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tracker = replace(in_mlflow.tracker, project="other", uri=f"sqlite:///{tmp_path}/runs.db", name="seed 1")
    config = replace(in_mlflow, work_dir=str(tmp_path / "work"), tracker=tracker)
    with pytest.raises(KeyboardInterrupt), tracking(config):
        raise KeyboardInterrupt
    client, (failed,) = mlflow_runs(config)
    assert (failed.info.run_name, failed.info.status) == ("seed 1", "FAILED")
    with tracking(config):
        assert client.get_run(failed.info.run_id).info.status == "RUNNING"
    assert client.get_run(failed.info.run_id).info.status == "FINISHED"
    with tracking(config):
        pass
    assert len(mlflow_runs(config)[1]) == 2


def records(path: Path) -> Iterator[Any]:
    """Yield the records in a file of Weights & Biases: LevelDB's log format after a header of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    data, position, parts = path.read_bytes(), 7, b""
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:  # a header never crosses a block
            position += left
            continue
        size = int.from_bytes(data[position + 4 : position + 6], "little")
        kind = data[position + 6]  # whole, first, middle, last part
        part = data[position + 7 : position + 7 + size]
        position += 7 + size
        parts = part if kind in (1, 2) else parts + part
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]  # made at import
            record.ParseFromString(parts)
            yield record


def test_weights_and_biases_writes_a_run_without_a_network(
    base: PipelineConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("WANDB_CACHE_DIR", str(tmp_path / "cache"))
    config = settings(base, tmp_path / "work", TrackerConfig(TrackerKind.wandb, project="shop", name="one"))
    run(config, QUIET)
    assert wandb.run is None, "ended"
    (file,) = (tmp_path / "work" / "wandb").glob("offline-run-*/*.wandb")
    history: dict[str, list[float]] = defaultdict(list)
    summary: dict[str, Any] = {}
    stored: dict[str, Any] = {}
    files: set[str] = set()
    names = set()
    for record in records(file):
        for item in record.history.item:
            history[item.key or "/".join(item.nested_key)].append(json.loads(item.value_json))
        for item in record.summary.update:
            summary[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        for item in (*record.config.update, *record.run.config.update):
            stored[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
        files |= {entry.path for entry in record.request.log_artifact.artifact.manifest.contents}
        files |= {entry.path for entry in record.artifact.manifest.contents}
        if record.run.display_name:
            names.add((record.run.project, record.run.display_name))
    assert names == {("shop", "one")}
    assert stored["user_encoder.dim"] == "16"
    result = json.loads((tmp_path / "work" / "evaluation" / "metrics.json").read_text())
    recall = result["test"]["shelfwise"]["recall@10"]
    assert summary["test/shelfwise/recall_at_10"] == pytest.approx(recall)
    assert summary["bundle_version"] == current_version(tmp_path / "work" / "artifacts")
    kept = read_curves(tmp_path / "work" / "encoder")["towers"]
    assert history["towers/valid_recall"] == pytest.approx([value for _, value in kept.validation])
    assert {"text_encoder/loss", "towers/loss", "ranker/loss", "ranker/valid_ndcg"} <= history.keys()
    assert files == {"report.html", "metrics.json"}


def test_a_missing_package_is_one_line_with_the_command(
    base: PipelineConfig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tracking_module, "find_spec", lambda name: None)
    config = settings(base, tmp_path / "never", TrackerConfig(TrackerKind.wandb))
    with pytest.raises(InputError, match=r"tracker=wandb: not installed; pip install 'shelfwise\[wandb\]'"):
        run(config, QUIET)
    assert not (tmp_path / "never").exists(), "reported before the first step"


def test_an_address_that_is_none_is_one_line(base: PipelineConfig, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    tracker = TrackerConfig(TrackerKind.mlflow, uri="carrier-pigeon://coop")
    with pytest.raises(InputError, match="MLflow cannot be used there") as raised:
        tracked_run(settings(base, tmp_path / "work", tracker))
    assert "\n" not in str(raised.value)


def test_settings_are_text_and_a_password_is_not_among_them(base: PipelineConfig) -> None:
    tracker = TrackerConfig(TrackerKind.mlflow, uri="https://name:secret@host")
    found = parameters(replace(base, tracker=tracker))
    assert "secret" not in str(found)
    assert found["seed"] == "0"
    assert found["ranker.hidden"] == "[16]"
    assert found["data.event_weights.click"] == "0.5"
    assert found["index.factory"] == "null"
    assert max(map(len, found.values())) <= 500


@pytest.mark.parametrize(
    ("folder", "name", "expected"),
    [("work/beauty", None, "beauty"), ("work/sweep/3", None, "sweep/3"), ("work/sweep/3", "mine", "mine")],
)
def test_names_of_runs(base: PipelineConfig, folder: str, name: str | None, expected: str) -> None:
    assert run_name(replace(base, work_dir=folder, tracker=TrackerConfig(name=name))) == expected


def test_the_command_line_chooses_a_tracker() -> None:
    assert compose_command("run", []).tracker == TrackerConfig()
    chosen = compose_command("run", ["tracker=mlflow", "tracker.project=shop"])
    assert chosen.tracker == TrackerConfig(TrackerKind.mlflow, "shop")
    assert compose_command("evaluate", ["tracker=wandb"]).tracker.kind is TrackerKind.wandb
    with pytest.raises(InputError, match=r"tracker.uri is the address of MLflow"):
        compose_command("run", ["tracker=wandb", "tracker.uri=http://x"])
    assert LOCAL_STORE == "sqlite:///mlflow.db"


def test_final_metrics_leave_out_what_was_not_measured() -> None:
    result = {"valid": {"a": {"mrr": 0.5, "diversity@10": None}}, "slices": {}}
    assert final_metrics(result) == {"valid/a/mrr": 0.5}
