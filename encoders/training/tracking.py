"""Experiment trackers beside TensorBoard: MLflow and Weights & Biases, each an optional dependency.

A run of the tracker belongs to a work directory: `tracker.json` there has its id until `evaluate` ends it, so
that a resumed command, or the steps of a run called one by one, continue the same run of the tracker.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytorch_lightning.loggers import Logger, MLFlowLogger, WandbLogger

from conf.errors import InputError
from conf.schema import PipelineConfig
from conf.tracking import TrackerKind
from features.data.pipeline_step import plain, write_atomically

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient
    from wandb import Run

RUN_FILE = "tracker.json"
LOCAL_STORE = "sqlite:///mlflow.db"
LONGEST_VALUE = 500
"""Characters of a setting's value that every MLflow server stores."""
TRAININGS = {"stage_one": "text_encoder", "stage_two": "towers"}
"""Name of a training's metrics by that of its checkpoints, where they differ."""


@dataclass(frozen=True)
class TrackedRun:
    """The address of a tracker's run; picklable, for the processes of a training."""

    kind: TrackerKind
    id: str
    project: str
    uri: str | None
    """MLflow's store."""
    folder: str
    """Work directory, where Weights & Biases writes its files."""


class _Mlflow(MLFlowLogger):
    """Lightning's logger of a run that goes on after a training."""

    LOGGER_JOIN_CHAR = "/"

    def finalize(self, status: str = "success") -> None:
        """Leave the run open: several trainings and an evaluation follow each other in it."""


class _Wandb(WandbLogger):
    """Lightning's logger with metric names as MLflow's have them."""

    LOGGER_JOIN_CHAR = "/"


def lightning_logger(run: TrackedRun, training: str) -> Logger:
    """Return Lightning's own logger of a run, its metrics under the name of the training."""
    prefix = TRAININGS.get(training, training)
    if run.kind is TrackerKind.mlflow:
        return _Mlflow(run.project, tracking_uri=run.uri, run_id=run.id, prefix=prefix)
    import wandb

    open_run = wandb.run if wandb.run is not None and wandb.run.id == run.id else None
    return _Wandb(project=run.project, id=run.id, save_dir=run.folder, prefix=prefix, experiment=open_run)


def run_name(config: PipelineConfig) -> str:
    """Return the name of a run: `tracker.name`, or the work directory's, with the folder before a number."""
    path = Path(config.work_dir).resolve()
    return config.tracker.name or (f"{path.parent.name}/{path.name}" if path.name.isdigit() else path.name)


def parameters(config: PipelineConfig) -> dict[str, str]:
    """Return every setting as text by its dotted key.

    The tracker's own are left out: its address may have a password.
    """

    def flat(prefix: str, value: Any) -> dict[str, str]:  # noqa: ANN401 - any setting
        if isinstance(value, dict) and value:
            return {k: v for key, inner in value.items() for k, v in flat(f"{prefix}.{key}", inner).items()}
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        return {prefix.removeprefix("."): text[:LONGEST_VALUE]}

    settings = plain(config)
    settings.pop("tracker")
    return flat("", settings)


def require_tracker(config: PipelineConfig) -> None:
    """Refuse a tracker that is not installed.

    Raises:
        InputError: with the command that installs it.
    """
    kind = config.tracker.kind
    if kind is not TrackerKind.none and find_spec(kind.value) is None:
        raise InputError(
            f"tracker={kind.value}: not installed; pip install 'shelfwise[{kind.value}]', "
            "or leave tracker out"
        )


def _mlflow_client(uri: str | None) -> MlflowClient:
    """Return MLflow's client; it reports its use to its makers only where the environment asks for it."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault(
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3"
    )  # 7 take four minutes to report a wrong address
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri)


def _open_mlflow(config: PipelineConfig, known: str | None) -> TrackedRun:
    uri = config.tracker.uri or os.environ.get("MLFLOW_TRACKING_URI") or LOCAL_STORE
    try:
        client = _mlflow_client(uri)
        experiment = client.get_experiment_by_name(config.tracker.project)
        number = (
            client.create_experiment(config.tracker.project)
            if experiment is None
            else experiment.experiment_id
        )
        if known is None:
            known = client.create_run(number, run_name=run_name(config)).info.run_id
        else:
            client.update_run(known, status="RUNNING")
    except Exception as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise InputError(
            f"tracker.uri={uri}: MLflow cannot be used there ({reason}); "
            "check the address, or leave tracker out"
        ) from error
    return TrackedRun(TrackerKind.mlflow, known, config.tracker.project, uri, config.work_dir)


def _open_wandb(config: PipelineConfig, known: str | None) -> TrackedRun:
    import wandb

    if wandb.run is not None and wandb.run.id != known:
        wandb.finish()  # of the job before this one, in a sweep
    if wandb.run is None:
        Path(config.work_dir).mkdir(parents=True, exist_ok=True)
        try:
            wandb.init(
                project=config.tracker.project,
                name=run_name(config),
                id=known,
                dir=config.work_dir,
                resume="allow" if known else None,
                settings=wandb.Settings(console="off", silent=True),
            )
        except Exception as error:
            raise InputError(
                f"tracker=wandb: {str(error).strip().splitlines()[-1]}; run `wandb login` first, or set "
                "WANDB_MODE=offline to write files for `wandb sync`"
            ) from error
    assert wandb.run is not None
    wandb.run.define_metric("trainer/global_step")
    wandb.run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    return TrackedRun(TrackerKind.wandb, wandb.run.id, config.tracker.project, None, config.work_dir)


def _stored(path: Path, kind: TrackerKind) -> str | None:
    """Return the id of the run that the work directory is in, None where there is none of this tracker."""
    with suppress(OSError, ValueError, AttributeError):
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored.get("kind") == kind.value and not stored.get("ended"):
            return str(stored["id"])
    return None


def tracked_run(config: PipelineConfig) -> TrackedRun | None:
    """Return the tracker's run of this work directory, begun with its configuration if there is none.

    Raises:
        InputError: the tracker is not installed or cannot be reached.
    """
    kind = config.tracker.kind
    if kind is TrackerKind.none:
        return None
    require_tracker(config)
    path = Path(config.work_dir) / RUN_FILE
    known = _stored(path, kind)
    run = (_open_mlflow if kind is TrackerKind.mlflow else _open_wandb)(config, known)
    if known is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps({"kind": kind.value, "id": run.id}) + "\n")
        _log_parameters(run, parameters(config))
    return run


def _wandb_run(run: TrackedRun) -> Run:
    import wandb

    assert wandb.run is not None
    assert wandb.run.id == run.id
    return wandb.run


def _log_parameters(run: TrackedRun, settings: Mapping[str, str]) -> None:
    if run.kind is TrackerKind.wandb:
        # The package gives this method no types.
        _wandb_run(run).config.update(dict(settings))  # type: ignore[no-untyped-call]
        return
    from mlflow.entities import Param

    client = _mlflow_client(run.uri)
    pairs = [Param(key, value) for key, value in settings.items()]
    for start in range(0, len(pairs), 100):  # as many as a call may have
        client.log_batch(run.id, params=pairs[start : start + 100])


def log_results(
    run: TrackedRun, metrics: Mapping[str, float], tags: Mapping[str, str], files: list[Path]
) -> None:
    """Store the final metrics, tags and files of a run.

    Args:
        run: of `tracked_run`.
        metrics: name -> value; `@` in a name becomes `_at_`, as MLflow refuses it.
        tags: name -> value.
        files: stored as artifacts.
    """
    named = {name.replace("@", "_at_"): value for name, value in metrics.items()}
    if run.kind is TrackerKind.wandb:
        import wandb

        current = _wandb_run(run)
        current.summary.update({**named, **tags})
        artifact = wandb.Artifact(f"evaluation-{run.id}", type="evaluation", metadata=dict(tags))
        for file in files:
            artifact.add_file(str(file), policy="immutable")
        current.log_artifact(artifact)
        return
    from mlflow.entities import Metric, RunTag

    client, now = _mlflow_client(run.uri), int(time.time() * 1000)
    points = [Metric(name, value, now, 0) for name, value in named.items()]
    for start in range(0, len(points), 1000):  # as many as a call may have
        client.log_batch(run.id, metrics=points[start : start + 1000])
    client.log_batch(run.id, tags=[RunTag(key, value) for key, value in tags.items()])
    for file in files:
        client.log_artifact(run.id, str(file))


def end_run(config: PipelineConfig, *, failed: bool = False) -> None:
    """End the tracker's run of this work directory, if one is open: the next command begins another.

    A failed one stays open for the command that resumes it.
    """
    kind, path = config.tracker.kind, Path(config.work_dir) / RUN_FILE
    known = None if kind is TrackerKind.none else _stored(path, kind)
    if known is None:
        return
    if kind is TrackerKind.wandb:
        import wandb

        if wandb.run is not None and wandb.run.id == known:
            wandb.finish(exit_code=int(failed))
    else:
        uri = config.tracker.uri or os.environ.get("MLFLOW_TRACKING_URI") or LOCAL_STORE
        _mlflow_client(uri).set_terminated(known, "FAILED" if failed else "FINISHED")
    if not failed:
        write_atomically(path, json.dumps({"kind": kind.value, "id": known, "ended": True}) + "\n")
