"""Fits in several processes by Lightning's DDP: any number of them trains the weights that one does."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from conf.encoders import TextEncoderConfig, UserEncoderConfig
from conf.schema import RankerConfig
from encoders.text.text_encoder import load_text_encoder
from encoders.training.fitting import MONITORED, Fit, fit
from encoders.training.sharded_stage_two import ShardedStageTwo
from encoders.training.stage_one import StageOne
from encoders.training.stage_two import StageTwo
from features.data.dataset import Dataset, FloatArray
from ranking.training.ranker_module import RankerModule
from tests.encoders.training.test_processes import towers_of
from tests.encoders.training.test_stage_one import SETTINGS, module_of
from tests.ranking.scoring.test_ranker import untrained
from tests.ranking.training.test_processes import lists_of_many_kinds

CPU = torch.device("cpu")
EPSILON = 1e-3
"""Of Adam. With its own of 1e-8, steps are nearly of one size, also where a gradient is nothing but rounding;
with this one a step changes by no more than a thousand times what rounding changes in the gradient."""


class _Smooth(pl.LightningModule):
    """Trains with that epsilon."""

    def configure_optimizers(self) -> Any:
        configured: Any = super().configure_optimizers()
        [optimizer] = configured[0] if isinstance(configured, tuple) else [configured]
        for group in optimizer.param_groups:
            group["eps"] = EPSILON
        return configured


class SmoothStageOne(_Smooth, StageOne):
    """The text encoder."""


class SmoothStageTwo(_Smooth, StageTwo):
    """The towers."""


class SmoothShardedStageTwo(_Smooth, ShardedStageTwo):
    """The towers, with tables that the processes divide."""


class SmoothRankerModule(_Smooth, RankerModule):
    """The ranking head."""


SMOOTH: dict[type[pl.LightningModule], type[pl.LightningModule]] = {
    StageOne: SmoothStageOne, StageTwo: SmoothStageTwo, ShardedStageTwo: SmoothShardedStageTwo,
    RankerModule: SmoothRankerModule,
}  # fmt: skip


@pytest.fixture
def text_stage(dataset: Dataset, bert: Path) -> StageOne:
    """Two passes for each of two steps an epoch, an adversarial pass after each, a head, no dropout."""
    settings = replace(
        SETTINGS, projection=8, accumulate=2, adversarial_epsilon=0.1, max_steps=4, validate_every=2,
        field_dropout=0.3, batch_size=9, learning_rate=1e-3, patience=5,
    )  # fmt: skip
    encoder = load_text_encoder(TextEncoderConfig(model=str(bert), max_tokens=24))
    for part in encoder.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    return module_of(dataset, encoder, settings)


TOWERS = UserEncoderConfig(
    dim=8, heads=2, max_length=6, dropout=0.0, batch_size=31, negatives=20, negative_power=0.5,
    id_dropout=0.4, average=1.0, learning_rate=1e-2,
)  # fmt: skip
"""Sampled negatives, hidden ids, an uneven last batch, a running average, no dropout."""


@pytest.fixture
def tower_stage(dataset: Dataset, text_vectors: FloatArray) -> StageTwo:
    return towers_of(dataset, text_vectors, TOWERS)


@pytest.fixture
def head_stage() -> RankerModule:
    """An uneven last batch, a running average, no dropout."""
    lists = lists_of_many_kinds(40)
    settings = RankerConfig(batch_size=9, average=1.0, learning_rate=1e-2)
    return RankerModule(untrained(), settings, lists, lists, 0)


@pytest.fixture
def sharded_stage(dataset: Dataset, text_vectors: FloatArray) -> ShardedStageTwo:
    """The same with tables that the processes divide."""
    module = towers_of(dataset, text_vectors, TOWERS)
    module.__class__ = ShardedStageTwo
    assert isinstance(module, ShardedStageTwo)
    return module


def fitted(module: StageOne | StageTwo | RankerModule, folder: Path, epochs: int, devices: int) -> Fit:
    monitor = "valid_ndcg" if isinstance(module, RankerModule) else MONITORED
    clip_norm = None if isinstance(module, StageOne) else 1.0
    return fit(
        module, folder, max_epochs=epochs, patience=5, monitor=monitor, device=CPU, clip_norm=clip_norm,
        devices=devices,
    )  # fmt: skip


@pytest.mark.parametrize("stage", ["text_stage", "tower_stage", "sharded_stage", "head_stage"])
def test_two_processes_and_one_train_what_one_does(
    stage: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    module = request.getfixturevalue(stage)
    whole = request.getfixturevalue("tower_stage") if stage == "sharded_stage" else module
    for each in {id(module): module, id(whole): whole}.values():
        each.__class__ = SMOOTH[type(each)]
    begin = {name: values.clone() for name, values in module.state_dict().items()}
    alone = fitted(copy.deepcopy(whole), tmp_path / "alone", 2, devices=1)
    expected = torch.load(tmp_path / "alone" / "last.ckpt", weights_only=True)["state_dict"]
    first, second = ((whole, 1), (module, 2)) if stage == "sharded_stage" else ((module, 2), (module, 1))
    # Copies, as a run that is resumed begins with a module of its own.
    fitted(copy.deepcopy(first[0]), tmp_path / "several", 1, devices=first[1])
    several = fitted(second[0], tmp_path / "several", 2, devices=second[1])
    found = torch.load(tmp_path / "several" / "last.ckpt", weights_only=True)["state_dict"]
    assert several.history == pytest.approx(alone.history, abs=1e-6)
    assert [step for step, _ in several.curve.loss] == [step for step, _ in alone.curve.loss]
    assert [v for _, v in several.curve.loss] == pytest.approx([v for _, v in alone.curve.loss], rel=1e-3)
    assert found.keys() == expected.keys()
    moved = 0.0
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, rtol=1e-5, atol=2e-6, msg=name)
        if values.is_floating_point():
            moved = max(moved, float((values - begin[name]).abs().max()))
    assert moved > 1e-3
