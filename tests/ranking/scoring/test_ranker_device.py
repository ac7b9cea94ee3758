"""The ranking head on a second device: nothing is left on the CPU, and the results are the CPU's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conf.schema import RankerConfig
from encoders.device import fits
from ranking.scoring.ranker import Ranker
from ranking.training.example_tensors import ExampleTensors
from ranking.training.examples import Examples
from ranking.training.ranker_module import RankerModule, raw_logits
from tests.ranking.scoring.test_ranker import examples, untrained
from tests.second_device import no_host_copies, second_device

CPU = torch.device("cpu")


def padded(queries: int = 90, seed: int = 1) -> Examples:
    """Examples of which some candidates are padding, and some negatives were left out."""
    made = examples(queries, seed=seed)
    real = made.real & (np.arange(12) < np.random.default_rng(seed).integers(4, 13, queries)[:, None])
    share = np.random.default_rng(seed).uniform(0.1, 1.0, queries).astype(np.float32)
    return replace(
        made, real=real, chosen=made.chosen & real, bought=made.bought & real, negative_share=share
    )


def trained(device: torch.device) -> tuple[Ranker, list[float], float]:
    """Train for an epoch as Lightning does; return the average, the losses and the validation metric."""
    logged: dict[str, float] = {}
    module = RankerModule(untrained(dropout=0.2), RankerConfig(batch_size=20), padded(), padded(seed=2), 0)
    module.log = lambda name, value, **_: logged.update({name: value})  # type: ignore[method-assign]
    module.to(device)
    module.on_fit_start()
    module.train()
    optimizer = module.configure_optimizers()
    losses = []
    for number, batch in enumerate(module.train_dataloader()):
        module.on_train_batch_start(batch, number)
        if number > 0:
            with no_host_copies():
                loss = step(module, optimizer, batch)
        else:  # the optimiser makes its state, the average learns that it begins
            loss = step(module, optimizer, batch)
        losses.append(loss)
    module.eval()
    with torch.inference_mode():
        module.validation_step(torch.zeros(1), 0)
    return module.to(CPU).trained, [float(loss) for loss in losses], logged["valid_ndcg"]


def step(module: RankerModule, optimizer: torch.optim.Optimizer, batch: ExampleTensors) -> Tensor:
    loss = module.training_step(batch, 0)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(module.ranker.parameters(), 5.0)
    optimizer.step()
    module.on_train_batch_end(None, batch, 0)
    return loss.detach()


@pytest.mark.parametrize("resident", [True, False])
def test_an_epoch_is_that_of_the_cpu_and_no_step_copies(
    monkeypatch: pytest.MonkeyPatch, resident: bool
) -> None:
    ranker, losses, ndcg = trained(CPU)
    with second_device() as device:
        if not resident:
            monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1000, 1000))
        ranker_there, losses_there, ndcg_there = trained(device)
    assert len(losses) == 5
    assert losses_there == pytest.approx(losses, rel=1e-4)
    assert ndcg_there == pytest.approx(ndcg, abs=1e-6)
    assert ndcg > 0
    for name, values in ranker.state_dict().items():
        torch.testing.assert_close(ranker_there.state_dict()[name], values, rtol=1e-3, atol=1e-5)
    features = padded(seed=3).features
    np.testing.assert_allclose(raw_logits(ranker_there, features), raw_logits(ranker, features), atol=1e-4)


def test_examples_go_to_the_device_where_they_leave_half_of_its_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = ExampleTensors.of(examples(10))
    size = 10 * 12 * (3 * 4 + 3) + 10 * 4
    with second_device() as device:
        for free, resident in ((2 * size, True), (2 * size - 1, False)):
            monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _, free=free: (free, free))
            assert fits(size, device) is resident
            assert made.on_device_if_fits(device).features.is_cuda is resident
        assert fits(10**15, CPU)
        assert not made.on_device_if_fits(CPU).features.is_cuda
