"""Dropout of the text encoder: at the rate of its setting in every epoch, and off without one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from conf.errors import InputError
from conf.schema import SplitKind
from encoders.contexts import ContextBatch
from encoders.text.text_encoder import TextEncoder
from encoders.text.trainable import set_dropout
from encoders.training.stage_one import StageOne
from encoders.training.train import train_text_encoder, try_split
from features.data.dataset import load_dataset
from features.prepare import prepare
from tests.synthetic import World, pipeline_config


@pytest.mark.parametrize("rate", [0.0, 0.25])
def test_two_passes_differ_by_dropout_alone(
    rate: float, world: World, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pipeline_config(world, bert, tmp_path, SplitKind.global_time)
    settings = replace(
        config.text_encoder, max_steps=2, validate_every=1, batch_size=8, dropout=rate, field_dropout=0.0,
        affinity_steps=0,
    )  # fmt: skip
    config = replace(config, text_encoder=settings)
    prepare(config, Console(quiet=True))
    dataset = load_dataset(Path(config.work_dir) / "dataset")
    step, differ = StageOne.training_step, []

    def twice(self: StageOne, batch: ContextBatch, index: int) -> None:
        with torch.no_grad():
            differ.append(float(self._loss(batch)) != float(self._loss(batch)))
        layers = [part for part in self.encoder.modules() if isinstance(part, nn.Dropout)]
        assert layers
        assert all((layer.p, layer.training) == (rate, rate > 0) for layer in layers)
        step(self, batch, index)

    monkeypatch.setattr(StageOne, "training_step", twice)
    train_text_encoder(config, dataset, try_split(config, dataset), True, Console(quiet=True))
    assert differ == [rate > 0] * 2, "in the second epoch, after a validation, too"


def test_the_rate_is_that_of_every_layer_of_the_model(encoder: TextEncoder) -> None:
    ids = torch.arange(5, 15)[None]
    layers = [part for part in encoder.backbone.modules() if isinstance(part, nn.Dropout)]
    # Of the embeddings, and in each of two blocks of the attention's weights, its output and the last layer.
    assert len(layers) == 1 + 2 * 3
    set_dropout(encoder, 0.5)
    assert {layer.p for layer in layers} == {0.5}
    with torch.no_grad():
        assert not torch.equal(encoder(ids), encoder(ids))
        set_dropout(encoder, 0.0)
        np.testing.assert_array_equal(encoder(ids), encoder(ids))


def test_a_model_without_dropout_layers_is_refused(encoder: TextEncoder) -> None:
    encoder.backbone = nn.Linear(2, 2)  # type: ignore[assignment]
    set_dropout(encoder, 0.0)
    with pytest.raises(InputError, match=r"^text_encoder.dropout=0.1: Linear has no dropout layers; set it"):
        set_dropout(encoder, 0.1)
