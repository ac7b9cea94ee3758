"""Commands in the processes that torchrun starts: carried out once, trained in all, failing in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console

from conf.errors import InputError
from conf.schema import SplitKind
from encoders.towers.towers import Towers
from encoders.training.fitting import fit, process_count
from encoders.training.launch import launched, run_command
from features.prepare import prepare
from tests.encoders.training.test_fitting import Scripted
from tests.synthetic import World, pipeline_config, read_json

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
SCRIPT = """
import os, sys
from dataclasses import replace
from pathlib import Path
import torch
from conf.schema import SplitKind
from encoders.training.stage_one import StageOne
from encoders.training.train import train_encoder
from shelfwise import CONSOLE, COMMANDS, InputError, execute, fail
from tests.synthetic import make_world, pipeline_config

torch.set_num_threads(1)
step = StageOne.training_step

def failing(self, batch, index):
    if self.global_rank == 1 and self.current_epoch == 1:
        raise ValueError("the second process\\nhas had enough")
    return step(self, batch, index)

if len(sys.argv) > 3:
    StageOne.training_step = failing
config = pipeline_config(make_world(), Path(sys.argv[1]), Path(sys.argv[2]), SplitKind.global_time)
config = replace(
    config, devices=0, user_encoder=replace(config.user_encoder, epochs=2),
    text_encoder=replace(config.text_encoder, max_steps=4, validate_every=2),
)
try:
    execute("train-encoder", config)
except InputError as error:
    fail(error)
"""


def torchrun(world: World, bert: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the train-encoder step in two processes."""
    prepare(pipeline_config(world, bert, folder, SplitKind.global_time), Console(quiet=True))
    script = folder / "script.py"
    script.write_text(SCRIPT)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
        str(script), str(bert), str(folder), *arguments,
    ]  # fmt: skip
    return subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}, capture_output=True,
        text=True, timeout=300, check=False,
    )  # fmt: skip


def test_a_command_is_carried_out_once_and_trained_in_every_process(
    world: World, bert: Path, tmp_path: Path
) -> None:
    done = torchrun(world, bert, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("user tower: validation recall@10") == 1
    assert done.stdout.count("StageOne epoch 1") == 1
    folder = tmp_path / "work" / "encoder"
    assert read_json(folder / "training.json")["trained"]
    weights = Towers.load(folder / "towers").state_dict()
    assert all(torch.isfinite(values).all() for values in weights.values())
    assert not any((tmp_path / "work" / "checkpoints").iterdir()), "nothing is left to resume"


def test_a_failing_process_ends_all_with_a_line(world: World, bert: Path, tmp_path: Path) -> None:
    done = torchrun(world, bert, tmp_path, "fail")
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("shelfwise: ")]
    reported = [line for line in lines if "has had enough" in line]
    assert len(reported) == 1
    assert reported[0].startswith("shelfwise: a process of the training failed: ")
    assert reported[0].endswith("the same command resumes after the last finished epoch")
    [kept] = (tmp_path / "work" / "checkpoints").glob("stage_one-*/failure-1.txt")
    assert "in failing" in kept.read_text()
    assert "ValueError: the second process" in kept.read_text()
    assert not (tmp_path / "work" / "encoder" / "stage.json").exists()


class Failing(Scripted):
    """Fails in the second of several processes."""

    def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
        if self.global_rank == 1:
            raise ValueError("enough")
        return super().training_step(batch, index)


def test_a_process_started_for_a_fit_fails_in_a_line(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"a process of the training failed: ValueError: enough \(the traceback"
    ) as info:
        fit(Failing([0.1]), tmp_path, max_epochs=1, patience=1, monitor="valid_recall", device=CPU, devices=2)
    assert "\n" not in str(info.value)
    assert 'raise ValueError("enough")' in (tmp_path / "failure-0.txt").read_text()


def test_how_many_processes_a_setting_means(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [process_count(n, CPU) for n in (0, 1, 3)] == [1, 1, 3]
    assert [process_count(n, gpu) for n in (0, 1, 3)] == [4, 1, 3]
    with pytest.raises(InputError, match="^devices=5: torch sees 4; set devices=4 or devices=0$"):
        process_count(5, gpu)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "16")
    assert launched() == 16
    assert [process_count(n, gpu) for n in (0, 1, 16)] == [16, 1, 16], "on several machines"


def test_torchrun_and_the_setting_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == 1
    assert run_command(lambda: 7, 1) == 7
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    monkeypatch.setenv("WORLD_SIZE", "4")
    for devices in (1, 2):
        with pytest.raises(InputError, match=f"devices={devices}: torchrun has started 4 .* set devices=0$"):
            run_command(lambda: 7, devices)
