"""Stage one and the affinity on a GPU; needs one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from conf.encoders import Precision, TuningMode
from encoders.factors.affinity import Affinity
from features.data.dataset import Dataset, FloatArray
from tests.encoders.sampled import sampler_of
from tests.encoders.training.test_stage_one import CPU, SETTINGS
from tests.encoders.training.test_stage_one_device import SMALL, trained

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
GPU = torch.device("cuda", 0)
CASES = {
    "plain": SMALL,
    "whole": replace(
        SMALL, projection=None, hard_negatives=2, adversarial_epsilon=0.3, field_dropout=0.3, accumulate=2
    ),
    "adapters": replace(SMALL, mode=TuningMode.lora, lora_rank=4, frozen_layers=0),
}


@contextmanager
def still() -> Iterator[None]:
    """Fail where an operation makes the host wait for the GPU."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("case", CASES)
def test_an_epoch_is_that_of_the_cpu_and_no_step_waits(dataset: Dataset, bert: Path, case: str) -> None:
    """Without the dropout of layers, which a GPU draws otherwise."""
    weights, losses, recall = trained(CPU, dataset, bert, CASES[case], dropout=False)
    there, losses_there, recall_there = trained(GPU, dataset, bert, CASES[case], still, dropout=False)
    assert losses_there == pytest.approx(losses, rel=1e-3)
    assert recall_there == pytest.approx(recall, abs=0.11), "rounding may swap neighbours"
    assert recall > 0, "rounding may swap neighbours"
    assert weights.keys() == there.keys()
    for name, values in weights.items():
        torch.testing.assert_close(there[name], values, rtol=1e-2, atol=1e-3, msg=name)


def test_bf16_is_near_and_drops_tokens_and_layers(dataset: Dataset, bert: Path) -> None:
    settings = replace(SMALL, precision=Precision.bf16)
    _, losses, _ = trained(CPU, dataset, bert, SMALL, dropout=False)
    _, rounded, _ = trained(GPU, dataset, bert, settings, still, dropout=False)
    assert rounded == pytest.approx(losses, rel=0.05)
    assert rounded != pytest.approx(losses, rel=1e-6)
    _, dropped, recall = trained(GPU, dataset, bert, replace(settings, token_dropout=0.2), still)
    assert np.isfinite(dropped).all()
    assert 0 < recall <= 1


def test_the_affinity_is_that_of_the_cpu(dataset: Dataset, text_vectors: FloatArray) -> None:
    settings = replace(SETTINGS, affinity_steps=20)
    here = Affinity.fit(text_vectors, sampler_of(dataset), settings, 0, CPU)
    there = Affinity.fit(text_vectors, sampler_of(dataset), settings, 0, GPU)
    assert here is not None
    assert there is not None
    np.testing.assert_allclose(there.units(text_vectors), here.units(text_vectors), atol=1e-2)
