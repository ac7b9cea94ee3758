"""The job that submitit submits: composed for SLURM, and run here by its local executor."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

import cloudpickle
import pytest
from rich.console import Console

from conf.schema import SplitKind
from features.prepare import prepare
from tests.deploy.manifests import DEPLOY, ROOT
from tests.processes import children
from tests.synthetic import World, pipeline_config, read_json

pytest.importorskip("submitit", reason="pip install 'shelfwise[slurm]'")


@pytest.fixture(scope="module")
def submit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("submit", DEPLOY / "slurm" / "submit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["submit"] = module
    spec.loader.exec_module(module)
    # As those of a script are: the job's processes have no module of this name.
    cloudpickle.register_pickle_by_value(module)
    return module


def test_a_slurm_job_has_a_task_for_every_gpu(
    submit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for program in ("srun", "sbatch"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    options = submit.parse([
        "--nodes", "2", "--gpus", "4", "--cpus", "12", "--hours", "1.5", "--partition", "long",
        "--logs", str(tmp_path / "logs"), "run", "data.items=items.csv", "work_dir=work/shop",
    ])  # fmt: skip
    assert options.command == ["run", "data.items=items.csv", "work_dir=work/shop"]
    executor = submit.executor_of(options)._executor
    text = executor._make_submission_file_text("TASK", "uid")
    lines = {line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")}
    assert lines >= {
        "nodes=2", "ntasks-per-node=4", "gpus-per-node=4", "cpus-per-task=12", "time=90", "partition=long",
        "signal=USR2@120", "job-name=shelfwise",
    }  # fmt: skip
    [run] = [line for line in text.splitlines() if line.startswith("srun ")]
    assert "--kill-on-bad-exit=1" in run
    assert "--cpus-per-task=12" in run, "srun does not take it from sbatch"
    assert run.endswith("TASK")


def test_a_job_without_a_command_is_refused(submit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        submit.parse(["--nodes", "2"])
    assert "name the command of shelfwise" in capsys.readouterr().err


def wait_for(path: Path, pattern: str, seconds: float = 200.0) -> None:
    until = time.monotonic() + seconds
    while not list(path.glob(pattern)):
        assert time.monotonic() < until, f"no {pattern}"
        time.sleep(0.02)


def test_two_processes_train_and_a_preempted_job_goes_on(
    submit: ModuleType, world: World, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    config = pipeline_config(world, bert, tmp_path, SplitKind.global_time)
    prepare(config, Console(quiet=True))
    settings = [
        f"data.items={config.data.items}", f"data.events={config.data.events}",
        "data.text_fields=[title,brand]", "data.event_weights={purchase: 1.0, click: 0.5}",
        f"work_dir={config.work_dir}", "device=cpu",
        f"text_encoder.model={bert}", "text_encoder.max_tokens=16", "text_encoder.max_steps=400",
        "text_encoder.validate_every=4", "text_encoder.batch_size=16", "text_encoder.patience=1",
        "text_encoder.precision=fp32", "user_encoder.dim=16", "user_encoder.epochs=1",
    ]  # fmt: skip
    job = submit.main([
        "--cluster", "local", "--gpus", "0", "--processes", "2", "--cpus", "1", "--hours", "0.2",
        "--logs", str(tmp_path / "logs"), "train-encoder", *settings,
    ])  # fmt: skip
    work = Path(config.work_dir)
    wait_for(work / "checkpoints", "stage_one-*/last.ckpt")
    os.kill(children(int(job.job_id))[0], signal.SIGUSR2)
    job.results()
    log = job.task(0).stdout()
    assert log is not None
    assert "Requeued job" in log
    assert log.count("StageOne epoch 1:") == 1, "the first epoch is not trained once more"
    assert log.count("user tower: validation recall@10") == 1
    assert "user tower" not in str(job.task(1).stdout())
    assert read_json(work / "encoder" / "training.json")["trained"]


def test_a_job_that_fails_says_so(
    submit: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    job = submit.main([
        "--cluster", "local", "--gpus", "0", "--logs", str(tmp_path / "logs"), "train-encoder",
        f"work_dir={tmp_path / 'nowhere'}",
    ])  # fmt: skip
    with pytest.raises(Exception, match="shelfwise ended with exit code 2; the log has the reason"):
        job.results()
    assert "no dataset.json here; run `shelfwise prepare` first" in str(job.stdout())
