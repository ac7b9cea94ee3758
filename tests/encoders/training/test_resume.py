"""Training killed the hard way, in the middle of an epoch, then started again."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from conf.schema import PipelineConfig, SplitKind
from encoders.training.train import train_encoder
from features.prepare import prepare
from tests.synthetic import World, pipeline_config, read_json

ROOT = Path(__file__).parents[3]
CHILD = """
import os, signal, sys, warnings
from pathlib import Path
from rich.console import Console
from conf.schema import SplitKind
from encoders.training.stage_one import StageOne
from encoders.training.stage_two import StageTwo
from encoders.training.train import train_encoder
from tests.synthetic import make_world, pipeline_config

stage, epoch = {"one": StageOne, "two": StageTwo}[sys.argv[3]], int(sys.argv[4])
step = stage.training_step

def deadly(self, batch, index):
    if self.current_epoch == epoch and index == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, batch, index)

stage.training_step = deadly
config = pipeline_config(make_world(), Path(sys.argv[1]), Path(sys.argv[2]), SplitKind.global_time)
train_encoder(config, Console(quiet=True))
"""


@dataclass(frozen=True)
class Outcome:
    """What a run left behind."""

    folder: Path
    printed: str

    @property
    def report(self) -> dict[str, Any]:
        return {k: v for k, v in read_json(self.folder / "training.json").items() if k != "seconds"}

    def weights(self) -> dict[str, bytes]:
        """Content of every file with weights or vectors."""
        return {
            p.relative_to(self.folder).as_posix(): p.read_bytes()
            for p in sorted(self.folder.rglob("*"))
            if p.suffix in (".safetensors", ".npy")
        }


def finish(config: PipelineConfig) -> Outcome:
    out = StringIO()
    return Outcome(train_encoder(config, Console(file=out, width=150)), out.getvalue())


@pytest.fixture(scope="module")
def outcomes(world: World, bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Results of a run left alone, and of runs killed in either stage and started again."""
    configs, children = {}, {}
    for name, epoch in (("one", "1"), ("two", "3"), ("never", "0")):
        folder = tmp_path_factory.mktemp(name)
        configs[name] = pipeline_config(world, bert, folder, SplitKind.global_time)
        prepare(configs[name], Console(quiet=True))
        if name != "never":
            children[name] = subprocess.Popen(
                [sys.executable, "-c", CHILD, str(bert), str(folder), name, epoch],
                cwd=ROOT,
                stderr=subprocess.PIPE,
            )
    for child in children.values():
        _, errors = child.communicate(timeout=120)
        assert child.returncode == -signal.SIGKILL, errors.decode()
    for name in children:
        assert not (Path(configs[name].work_dir) / "encoder" / "stage.json").exists()
    return {name: finish(config) for name, config in configs.items()}


@pytest.mark.parametrize("stage", ["one", "two"])
def test_a_killed_run_goes_on_to_exactly_the_same_result(outcomes: dict[str, Outcome], stage: str) -> None:
    whole, resumed = outcomes["never"], outcomes[stage]
    assert resumed.report == whole.report
    assert resumed.weights() == whole.weights()
    assert len(whole.weights()) >= 5
    assert np.isfinite(np.load(whole.folder / "text_vectors.npy")).all()


@pytest.mark.parametrize(("stage", "again"), [("one", "StageOne epoch 1"), ("two", "StageTwo epoch 3")])
def test_finished_epochs_are_not_repeated(outcomes: dict[str, Outcome], stage: str, again: str) -> None:
    assert again in outcomes["never"].printed
    assert again not in outcomes[stage].printed
    assert "StageTwo epoch 6" in outcomes[stage].printed
    if stage == "two":
        assert "StageOne epoch" not in outcomes[stage].printed


def test_checkpoints_are_gone_when_all_is_done(outcomes: dict[str, Outcome]) -> None:
    for outcome in outcomes.values():
        assert list((outcome.folder.parent / "checkpoints").iterdir()) == []
