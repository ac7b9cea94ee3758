"""However a parent ends, the processes of its training end with it, even where a reduction blocks them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import distributed

from tests.encoders.training.test_fitting import Scripted
from tests.processes import runs

ROOT = Path(__file__).parents[3]
SCRIPT = """
import sys
from pathlib import Path
import torch
from encoders.training.fitting import fit
from encoders.training.launch import run_command
from tests.encoders.training.test_orphans import Blocked

def train():
    fit(
        Blocked(folder), folder / "fit", max_epochs=1, patience=1, monitor=None, device=torch.device("cpu"),
        devices=int(sys.argv[2]),
    )

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    run_command(train, int(sys.argv[2]))
"""


class Blocked(Scripted):
    """Waits for the other process in every process, as where a reduction's partner is gone."""

    def __init__(self, folder: Path) -> None:
        super().__init__([])
        self.folder = folder

    def training_step(self, _batch: torch.Tensor, _index: int) -> torch.Tensor:
        rank = distributed.get_rank()
        (self.folder / f"pid-{rank}.tmp").write_text(str(os.getpid()))
        (self.folder / f"pid-{rank}.tmp").rename(self.folder / f"pid-{rank}")
        distributed.recv(torch.zeros(1), 1 - rank)
        raise AssertionError


def until(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("launcher", "devices", "end"),
    [
        ([], 2, signal.SIGKILL),
        ([], 2, signal.SIGINT),
        (["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"], 0, signal.SIGKILL),
    ],
    ids=["killed", "interrupted", "torchrun killed"],
)
def test_no_process_outlives_its_parent(
    launcher: list[str], devices: int, end: signal.Signals, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, *launcher, str(script), str(tmp_path), str(devices)], cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE,
    )  # fmt: skip
    pids: list[int] = []
    try:
        until(lambda: parent.poll() is not None or len(list(tmp_path.glob("pid-?"))) == 2, 300)
        assert parent.poll() is None, parent.communicate()[1].decode()
        pids = [int(path.read_text()) for path in tmp_path.glob("pid-?")]
        assert parent.pid not in pids
        time.sleep(0.5)  # both wait in the middle of the step
        assert all(map(runs, pids))
        parent.send_signal(end)
        until(lambda: not any(map(runs, pids)), 20)
        assert parent.wait(120) != 0
    finally:
        for pid in [parent.pid, *pids]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        parent.communicate()
