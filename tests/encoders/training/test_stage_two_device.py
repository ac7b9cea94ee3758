"""Stage two on a second device: nothing is left on the CPU, and the results are the CPU's."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conf.encoders import UserEncoderConfig
from encoders.towers.sequences import EventTensors
from encoders.towers.towers import Towers, best_items
from encoders.training.stage_two import StageTwo, TowerBatches, tower_recall
from features.data.dataset import Dataset, FloatArray
from features.data.splits import Queries
from tests.encoders.towers.test_towers import TINY, Logged, queries
from tests.second_device import no_host_copies, second_device
from tests.synthetic import everything

CPU = torch.device("cpu")


def asked(dataset: Dataset) -> Queries:
    """What users took after their first four events, of different numbers."""
    users = list(range(20))
    end = [int(dataset.events.offsets[user]) + 4 for user in users]
    return queries(users, end, [dataset.events.item[e : e + 1 + e % 2].tolist() for e in end])


def module_on(
    device: torch.device, dataset: Dataset, vectors: FloatArray, config: UserEncoderConfig
) -> StageTwo:
    """Stage two as a fit begins with it."""
    torch.manual_seed(0)
    towers = Towers.from_config(config, vectors.shape[1], len(vectors), len(dataset.kinds))
    towers.item_tower.fit_text(vectors, np.arange(len(vectors)) % 5 > 0)
    module = StageTwo(
        towers, config, dataset.events, everything(dataset), vectors, dataset.kind_weights, asked(dataset),
        exclude_seen=True, seed=0, ties_unordered=True,
    )  # fmt: skip
    module.log = Logged()  # type: ignore[assignment]
    module.to(device)
    module.on_fit_start()
    return module


def trained(
    device: torch.device, dataset: Dataset, vectors: FloatArray, config: UserEncoderConfig
) -> tuple[dict[str, Tensor], list[float], float]:
    """Train for an epoch as Lightning does; return the averaged weights, the losses and the recall."""
    module = module_on(device, dataset, vectors, config)
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
    kept = {name: values.cpu() for name, values in module.trained.state_dict().items()}
    return kept, [float(loss) for loss in losses], module.log.values["valid_recall"]  # type: ignore[attr-defined]


def step(module: StageTwo, optimizer: torch.optim.Optimizer, batch: object) -> Tensor:
    loss: Tensor = module.training_step(batch, 0)  # type: ignore[arg-type]
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(module.towers.parameters(), 1.0)
    optimizer.step()
    module.on_train_batch_end(None, batch, 0)  # type: ignore[arg-type]
    return loss.detach()


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, negatives=20, negative_power=0.5, id_dropout=0.3, dropout=0.2, layers=2),
        replace(TINY, hybrid=False, negatives=20),
        replace(TINY, text=False),
    ],
)
def test_an_epoch_is_that_of_the_cpu_and_no_step_copies(
    dataset: Dataset, text_vectors: FloatArray, config: UserEncoderConfig
) -> None:
    weights, losses, recall = trained(CPU, dataset, text_vectors, config)
    with second_device() as device:
        weights_there, losses_there, recall_there = trained(device, dataset, text_vectors, config)
    assert len(losses) > 3
    assert losses_there == pytest.approx(losses, rel=1e-4)
    assert recall_there == pytest.approx(recall, abs=1e-6)
    assert recall > 0
    for name, values in weights.items():  # AdamW moves by a step where a gradient is nothing but rounding
        torch.testing.assert_close(weights_there[name], values, rtol=1e-3, atol=2e-4)


def test_item_vectors_lists_and_recall_are_those_of_the_cpu(
    dataset: Dataset, text_vectors: FloatArray
) -> None:
    towers = module_on(CPU, dataset, text_vectors, TINY).trained.eval()
    vectors = towers.item_vectors(text_vectors)
    lists = best_items(torch.from_numpy(vectors[:5]), torch.from_numpy(vectors), 7)
    recall = tower_recall(towers, torch.from_numpy(vectors), dataset.events, asked(dataset), False, 10)
    with second_device() as device:
        towers.to(device)
        assert np.array_equal(towers.item_vectors(text_vectors), vectors)
        whitened = towers.item_tower.whitened(torch.from_numpy(text_vectors).to(device))
        catalogue = towers.catalogue(whitened)
        assert catalogue.device == device
        assert np.array_equal(catalogue.cpu().numpy(), vectors)
        with no_host_copies():
            towers.catalogue(whitened)
        assert np.array_equal(best_items(catalogue[:5], catalogue, 7), lists)
        tensors = EventTensors.of(dataset.events).to(device)
        there = tower_recall(towers, catalogue, dataset.events, asked(dataset), False, 10, tensors)
        assert there.device == device
        assert torch.equal(there.cpu(), recall)


def test_batches_are_made_on_the_device(dataset: Dataset) -> None:
    with second_device() as device:
        tensors = EventTensors.of(dataset.events).to(device)
        epoch = iter(TowerBatches(dataset.events, everything(dataset), TINY, 0, tensors=tensors))
        there = [next(epoch)]
        with no_host_copies():
            there += epoch
    here = list(TowerBatches(dataset.events, everything(dataset), TINY, 0))
    assert len(here) == len(there) > 3
    for a, b in zip(here, there, strict=True):
        for name in ("rows", "kinds", "times", "valid"):
            assert torch.equal(getattr(b.events, name).cpu(), getattr(a.events, name))
        assert torch.equal(b.predicts.cpu(), a.predicts)
