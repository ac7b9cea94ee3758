"""Commands in the processes that torchrun starts: carried out once, trained in all, failing in one line."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import distributed
from torch._C._distributed_c10d import TCPStore

from conf.errors import InputError
from conf.schema import SplitKind
from encoders.towers.towers import Towers
from encoders.training import launch
from encoders.training.failures import GONE
from encoders.training.fitting import fit, process_count
from encoders.training.launch import VARIABLES, _ProcessGroup, launched, run_command
from encoders.training.train import train_encoder
from features.prepare import prepare
from tests.encoders.training.test_fitting import Scripted
from tests.synthetic import World, pipeline_config, read_json

ROOT = Path(__file__).parents[3]
CPU = torch.device("cpu")
AGAIN = "the same command resumes after the last finished epoch"
SCRIPT = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from conf.schema import SplitKind
from encoders.training.stage_one import StageOne
from encoders.training.train import train_encoder
from shelfwise import CONSOLE, COMMANDS, InputError, execute, fail
from tests.synthetic import make_world, pipeline_config

step = StageOne.training_step

def failing(self, batch, index):
    if self.global_rank == int(sys.argv[4]) and self.current_epoch == 1:
        if sys.argv[3] == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
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
    done = torchrun(world, bert, tmp_path, "fail", "1")
    assert done.returncode != 0
    [reported] = [line for line in done.stderr.splitlines() if line.startswith("shelfwise: ")]
    assert reported.startswith(
        "shelfwise: a process of the training failed: ValueError: the second process (the traceback is in "
    )
    assert reported.endswith("the same command resumes after the last finished epoch")
    [kept] = (tmp_path / "work" / "checkpoints").glob("stage_one-*/failure-1.txt")
    assert "in failing" in kept.read_text()
    assert "ValueError: the second process" in kept.read_text()
    assert not (tmp_path / "work" / "encoder" / "stage.json").exists()


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_killed_process_ends_all_with_a_line_and_another_number_of_them_resumes(
    world: World, bert: Path, tmp_path: Path, rank: str
) -> None:
    done = torchrun(world, bert, tmp_path, "kill", rank)
    assert done.returncode != 0
    [reported] = [line for line in done.stderr.splitlines() if line.startswith("shelfwise: ")]
    assert reported == f"shelfwise: a process of the training failed: {GONE}; {AGAIN}"
    [kept] = (tmp_path / "work" / "checkpoints").glob("stage_one-*/last.ckpt")
    assert torch.load(kept, weights_only=True)["epoch"] == 0
    out = StringIO()
    config = pipeline_config(world, bert, tmp_path, SplitKind.global_time)
    config = replace(
        config, user_encoder=replace(config.user_encoder, epochs=2),
        text_encoder=replace(config.text_encoder, max_steps=4, validate_every=2),
    )  # fmt: skip
    train_encoder(config, Console(file=out, width=150))
    assert "StageOne epoch 1" not in out.getvalue()
    assert "StageOne epoch 2" in out.getvalue()
    assert not any((tmp_path / "work" / "checkpoints").iterdir())


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
    assert 'raise ValueError("enough")' in (tmp_path / "failure-1.txt").read_text()
    assert not (tmp_path / "processes").exists()


def test_a_traceback_is_written_before_the_others_lose_the_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[bool] = []

    def left() -> None:
        written.append((tmp_path / "failure-0.txt").exists())
        raise RuntimeError("Connection reset by peer")

    def job(_: object) -> None:
        raise ValueError("enough")

    monkeypatch.setattr(distributed, "init_process_group", lambda *_, **__: None)
    monkeypatch.setattr(distributed, "destroy_process_group", left)
    group = _ProcessGroup(TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False), 0, 1)
    with pytest.raises(RuntimeError, match="reset"):
        group.take_part(job, "cpu", tmp_path, None)
    assert written == [True]
    assert (tmp_path / "failure-0.txt").read_text().startswith("ValueError: enough\n")


@pytest.mark.parametrize(
    ("error", "raised"),
    [(OSError(28, "No space left on device"), InputError), (KeyboardInterrupt(), KeyboardInterrupt)],
)
def test_a_job_that_cannot_be_handed_over_leaves_nothing(
    error: BaseException, raised: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(_: object, folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "0.npy").write_bytes(b"half")
        raise error

    monkeypatch.setattr(launch, "hand_over", half)
    with pytest.raises(raised, match=None if raised is KeyboardInterrupt else "No space left"):
        launch.train_in_all(lambda _: None, tmp_path / "run", CPU, 2, None)
    assert list((tmp_path / "run").iterdir()) == []


def start_by_launcher(monkeypatch: pytest.MonkeyPatch, ranks: int) -> None:
    """Set what a launcher sets for the first of its processes."""
    values = (0, ranks, 0, 4, "127.0.0.1", 1)
    for name, value in zip(VARIABLES, values, strict=True):
        monkeypatch.setenv(name, str(value))


def test_how_many_processes_a_setting_means(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert [process_count(n, CPU) for n in (0, 1, 3)] == [1, 1, 3]
    assert [process_count(n, gpu) for n in (0, 1, 3)] == [4, 1, 3]
    with pytest.raises(InputError, match="^devices=5: torch sees 4; set devices=4 or devices=0$"):
        process_count(5, gpu)
    start_by_launcher(monkeypatch, 16)
    assert launched() == 16
    assert [process_count(n, gpu) for n in (0, 1, 16)] == [16, 1, 16], "on several machines"


def test_torchrun_and_the_setting_must_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launched() == 1
    assert run_command(lambda: 7, 1) == 7
    start_by_launcher(monkeypatch, 4)
    for devices in (1, 2):
        with pytest.raises(InputError, match=f"devices={devices}: 4 processes were started.* set devices=0$"):
            run_command(lambda: 7, devices)
    monkeypatch.delenv("MASTER_PORT")
    assert launched() == 1, "a variable of the name alone, as some clusters set, starts nothing"
