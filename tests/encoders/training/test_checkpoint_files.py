"""Checkpoint files: their content, their memory, and a crash while one is written."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.training_memory import Peak
from encoders.training.checkpoint_files import StreamedCheckpoints


def test_a_checkpoint_is_read_as_it_was_written_and_replaces_the_former(tmp_path: Path) -> None:
    path = tmp_path / "run" / "last.ckpt"
    files = StreamedCheckpoints()
    files.save_checkpoint({"epoch": 1, "weights": torch.arange(3)}, path)
    files.save_checkpoint({"epoch": 2, "weights": torch.arange(4)}, path)
    found = files.load_checkpoint(path)
    assert found["epoch"] == 2
    assert found["weights"].tolist() == [0, 1, 2, 3]
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_no_copy_of_the_weights_is_made(tmp_path: Path) -> None:
    weights = torch.ones(32 << 20, dtype=torch.uint8)
    with Peak() as peak:
        StreamedCheckpoints().save_checkpoint({"weights": weights}, tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").stat().st_size >= weights.nbytes
    assert peak.bytes < weights.nbytes / 2


def test_a_checkpoint_is_mapped_and_its_file_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    StreamedCheckpoints().save_checkpoint({"weights": torch.ones(32 << 20, dtype=torch.uint8)}, path)
    with Peak() as peak:
        found = StreamedCheckpoints().load_checkpoint(path)["weights"]
        found[:5] = 2
    assert str(path) in Path("/proc/self/maps").read_text()
    assert peak.bytes < found.nbytes / 2
    StreamedCheckpoints().save_checkpoint({"weights": torch.zeros(5)}, path)
    assert found[:6].tolist() == [2, 2, 2, 2, 2, 1]
    assert StreamedCheckpoints().load_checkpoint(path)["weights"].tolist() == [0] * 5


def test_what_cannot_be_written_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    StreamedCheckpoints().save_checkpoint({"epoch": 1}, path)
    with pytest.raises((AttributeError, TypeError)):
        StreamedCheckpoints().save_checkpoint({"epoch": lambda: 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]


def test_what_a_killed_training_left_unfinished_is_written_over(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    script = (
        "import os, pathlib, signal, sys, torch\n"
        "from encoders.training.checkpoint_files import StreamedCheckpoints\n"
        "def half(_, file):\n"
        "    pathlib.Path(file).write_bytes(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "torch.save = half\n"
        "StreamedCheckpoints().save_checkpoint({'epoch': 1}, sys.argv[1])"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    StreamedCheckpoints().save_checkpoint({"epoch": 2}, path)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
