"""Stage one on a second device: nothing is left on the CPU, no step copies, and the results are the CPU's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conf.encoders import TextEncoderConfig, TuningMode
from encoders.contexts import ContextBatch
from encoders.factors.affinity import Affinity
from encoders.text.text_encoder import load_text_encoder
from encoders.text.trainable import choose_trainable
from encoders.training.stage_one import StageOne
from features.data.dataset import Dataset, FloatArray
from tests.encoders.sampled import sampler_of
from tests.encoders.training.test_stage_one import CPU, SETTINGS, ask, module_of
from tests.second_device import no_host_copies, second_device

SMALL = replace(SETTINGS, max_steps=3, validate_every=3, batch_size=4)
CASES = {
    "plain": SMALL,
    "whole": replace(
        SMALL, projection=None, hard_negatives=2, adversarial_epsilon=0.3, field_dropout=0.3,
        token_dropout=0.2, accumulate=2,
    ),
    "adapters": replace(SMALL, mode=TuningMode.lora, lora_rank=4, recompute=False, logq=False),
    "frozen layers": replace(SMALL, frozen_layers=1, mask_false_negatives=False),
}  # fmt: skip


class Steps:
    """What Lightning is to the module in a step: optimiser, schedule, backward, clipping, log."""

    def __init__(self, module: StageOne) -> None:
        """Stand in for a trainer."""
        [self.optimizer], [self.schedule] = module.configure_optimizers()
        self.losses: list[Tensor] = []
        self.values: dict[str, float] = {}
        for name in ("log", "clip_gradients", "manual_backward"):
            setattr(module, name, getattr(self, name))
        module.optimizers = lambda: self.optimizer  # type: ignore[method-assign, assignment]
        module.lr_schedulers = lambda: self.schedule  # type: ignore[method-assign]

    def log(self, name: str, value: Tensor | float, **_: object) -> None:
        if name == "loss":
            assert isinstance(value, Tensor)
            self.losses.append(value)
        else:
            self.values[name] = float(value)

    def clip_gradients(self, optimizer: torch.optim.Optimizer, gradient_clip_val: float, **_: object) -> None:
        groups = optimizer.param_groups
        nn.utils.clip_grad_norm_([p for group in groups for p in group["params"]], gradient_clip_val)

    def manual_backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]


Learnt = tuple[dict[str, Tensor], list[float], float]
"""Weights, losses, and the recall that validation measures."""


def trained(
    device: torch.device,
    dataset: Dataset,
    bert: Path,
    settings: TextEncoderConfig,
    still: Callable[[], AbstractContextManager[None]] = no_host_copies,
    dropout: bool = True,
) -> Learnt:
    """Train for an epoch and validate as Lightning does; `still` forbids steps to make the host wait."""
    torch.manual_seed(0)
    encoder = load_text_encoder(TextEncoderConfig(model=str(bert), max_tokens=24))
    events = dataset.events
    users = list(range(20))
    after = [int(events.offsets[user]) + 3 for user in users]
    valid = ask(users, after, [int(events.item[place]) for place in after])
    module = module_of(dataset, encoder, settings, valid)
    choose_trainable(encoder, settings)
    module.to(device).train(dropout)
    steps = Steps(module)
    module.on_train_epoch_start()
    for number, batch in enumerate(module.train_dataloader()):
        module.on_train_batch_start(batch, number)
        if number < 2 * settings.accumulate:  # the optimiser makes its state, the loss its tables
            module.training_step(batch, number)
        else:
            with still():
                module.training_step(batch, number)
    module.eval()
    with torch.inference_mode():
        module.validation_step(torch.zeros(1), 0)
    weights = {name: values.cpu().detach() for name, values in module.state_dict().items()}
    return weights, [float(loss) for loss in steps.losses], steps.values["valid_recall"]


@pytest.mark.parametrize("case", CASES)
def test_an_epoch_is_that_of_the_cpu_and_no_step_copies(dataset: Dataset, bert: Path, case: str) -> None:
    settings = CASES[case]
    weights, losses, recall = trained(CPU, dataset, bert, settings)
    with second_device() as device:
        weights_there, losses_there, recall_there = trained(device, dataset, bert, settings)
    assert len(losses) == 3 * settings.accumulate
    assert losses_there == pytest.approx(losses, rel=1e-4)
    assert recall_there == pytest.approx(recall, abs=1e-6)
    assert recall > 0
    for name, values in weights.items():  # AdamW moves by a step where a gradient is nothing but rounding
        torch.testing.assert_close(weights_there[name], values, rtol=1e-3, atol=1e-3, msg=name)


def test_contexts_reach_the_device_in_one_copy(dataset: Dataset) -> None:
    batch: ContextBatch = next(sampler_of(dataset).batches(1, 8, seed=3))
    here = batch.indexed(batch.rows(), CPU)
    hidden = sampler_of(dataset).tables(CPU).false_negatives(here)
    with second_device() as device:
        tables = sampler_of(dataset).tables(device)
        with no_host_copies():
            there = batch.indexed(batch.rows(), device)
            members, hidden_there = there.members(), tables.false_negatives(there)
        assert members.device == device
        assert torch.equal(members.cpu(), here.members())
        assert torch.equal(hidden_there.cpu(), hidden)
        assert torch.equal(there.weight.cpu(), here.weight)


def test_the_affinity_is_that_of_the_cpu(dataset: Dataset, text_vectors: FloatArray) -> None:
    settings = replace(SETTINGS, affinity_steps=5)
    here = Affinity.fit(text_vectors, sampler_of(dataset), settings, 0, CPU)
    with second_device() as device:
        there = Affinity.fit(text_vectors, sampler_of(dataset), settings, 0, device)
    assert here is not None
    assert there is not None
    np.testing.assert_allclose(there.matrix, here.matrix, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(there.shift, here.shift, rtol=1e-4, atol=1e-5)
