"""Several processes compute the loss and the gradients of one that has the whole batch."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import distributed, nn
from torch.multiprocessing.spawn import start_processes

from conf.encoders import TextEncoderConfig, UserEncoderConfig
from encoders.text.text_encoder import load_text_encoder
from encoders.towers.towers import Towers
from encoders.training.processes import all_gather, rank_and_size
from encoders.training.stage_one import StageOne
from encoders.training.stage_two import StageTwo
from features.data.dataset import Dataset, FloatArray
from tests.encoders.towers.test_towers import Logged
from tests.encoders.training.test_stage_one import SETTINGS, module_of
from tests.encoders.training.test_stage_two_device import asked
from tests.synthetic import everything

RANKS = 3
CASES = {
    "plain": SETTINGS,
    "head and weights": replace(SETTINGS, projection=8, batch_size=2),
    "dropped fields and mined negatives": replace(SETTINGS, field_dropout=0.4, hard_negatives=2),
    "no corrections": replace(SETTINGS, logq=False, mask_false_negatives=False, recompute=False),
}
TOWERS = {
    "windows": UserEncoderConfig(dim=8, heads=2, max_length=6, dropout=0.0, batch_size=8),
    "negatives": UserEncoderConfig(
        dim=8,
        heads=2,
        max_length=6,
        dropout=0.0,
        batch_size=7,
        negatives=20,
        negative_power=0.5,
        id_dropout=0.4,
    ),
    "fewer windows than processes": UserEncoderConfig(
        dim=8, heads=2, max_length=6, dropout=0.0, batch_size=2, negatives=5
    ),
}
Learnt = tuple[float, dict[str, torch.Tensor]]
"""Loss and gradients by parameter."""


def learnt(module: nn.Module, loss: torch.Tensor) -> Learnt:
    """Return a loss and its gradients, averaged over the processes as DDP averages them."""
    module.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    ranks = rank_and_size()[1]
    value = loss.detach().clone()
    if ranks > 1:
        for tensor in (value, *gradients.values()):
            distributed.all_reduce(tensor)
            tensor /= ranks
    return float(value), gradients


def stage_one_step(module: StageOne) -> Learnt:
    module.on_train_epoch_start()
    mined = module.mined
    if mined is not None:  # which items are near hangs on the rounding of cosines
        others = np.arange(len(mined), dtype=np.int32)[:, None] + np.arange(1, 6, dtype=np.int32)
        module.mined = (others % len(mined)).astype(np.int32)
    found = learnt(module, module._loss(next(iter(module.train_dataloader()))))
    with torch.inference_mode():
        found[1]["recall"] = torch.tensor(module.text_recall(module._embed(module.pool)))
    if mined is not None:
        found[1]["mined"] = torch.from_numpy(np.sort(mined, axis=1)).float()
    return found


def towers_of(dataset: Dataset, vectors: FloatArray, config: UserEncoderConfig) -> StageTwo:
    """Return stage two with events of two weights, so that shares of a batch do not weigh alike."""
    torch.manual_seed(0)
    towers = Towers.from_config(config, vectors.shape[1], len(vectors), len(dataset.kinds))
    towers.item_tower.fit_text(vectors, np.ones(len(vectors), np.bool_))
    return StageTwo(
        towers, config, dataset.events, everything(dataset), vectors, dataset.kind_weights,
        asked(dataset), True, 0,
    )  # fmt: skip


def stage_two_step(module: StageTwo) -> Learnt:
    """Learn from the third batch: what is drawn for it follows on two others."""
    module.log = Logged()  # type: ignore[assignment]
    for number, batch in enumerate(islice(module.train_dataloader(), 3)):
        module.on_train_batch_start(batch, number)
        loss = module.training_step(batch, number)
    found = learnt(module, loss)
    with torch.inference_mode():
        module.validation_step(torch.zeros(1), 0)
    found[1]["recall"] = torch.tensor(module.log.values["valid_recall"])  # type: ignore[attr-defined]
    return found


def gathered_step() -> Learnt:
    """Each process's weight counts once for every process that reads it."""
    rank, ranks = rank_and_size()
    own = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        own.weight.copy_(torch.tensor([[rank + 1.0, 10.0 * (rank + 1)]]))
    whole = all_gather(own.weight)
    assert whole.tolist() == [[r + 1.0, 10.0 * (r + 1)] for r in range(ranks)]
    (whole * (rank + 1.0)).sum().backward()  # type: ignore[no-untyped-call]
    assert own.weight.grad is not None
    return 0.0, {"own": own.weight.grad}


def step(module: StageOne | StageTwo) -> Learnt:
    return stage_one_step(module) if isinstance(module, StageOne) else stage_two_step(module)


def work(rank: int, port: int, jobs: dict[str, Callable[[], Learnt]], folder: Path) -> None:
    """Take each step as one of several processes and write what this one has learnt."""
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    torch.save({name: job() for name, job in jobs.items()}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


def learnt_by_each(jobs: dict[str, Callable[[], Learnt]], folder: Path) -> list[dict[str, Learnt]]:
    """Return what each of several processes learns in each step."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(work, (port, jobs, folder), nprocs=RANKS, start_method="spawn")  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


def assert_learnt_alike(case: str, alone: dict[str, Learnt], several: list[dict[str, Learnt]]) -> None:
    """Loss, gradients and metrics of every process are those of one alone, up to rounding."""
    loss, expected = alone[case]
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-3
    for found in several:
        value, gradients = found[case]
        assert value == pytest.approx(loss, rel=1e-5)
        assert gradients.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


@pytest.fixture(scope="module")
def found(
    dataset: Dataset, bert: Path, text_vectors: FloatArray, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Learnt], list[dict[str, Learnt]]]:
    """Return what one process learns in each case, and what each of several does."""
    config = TextEncoderConfig(model=str(bert), max_tokens=24)
    folder = tmp_path_factory.mktemp("processes")
    modules: dict[str, StageOne | StageTwo] = {
        # Without dropout, which every process draws for itself.
        name: module_of(dataset, load_text_encoder(config).eval(), settings)
        for name, settings in CASES.items()
    }
    modules |= {name: towers_of(dataset, text_vectors, settings) for name, settings in TOWERS.items()}
    jobs: dict[str, Callable[[], Learnt]] = {name: partial(step, m) for name, m in modules.items()}
    several = learnt_by_each({**jobs, "gathered": gathered_step}, folder)
    return {name: job() for name, job in jobs.items()}, several


@pytest.mark.parametrize("case", [*CASES, *TOWERS])
def test_processes_learn_what_one_learns_from_the_joint_batch(
    case: str, found: tuple[dict[str, Learnt], list[dict[str, Learnt]]]
) -> None:
    assert_learnt_alike(case, *found)


def test_a_gathered_part_gets_the_gradients_of_all_processes(
    found: tuple[dict[str, Learnt], list[dict[str, Learnt]]],
) -> None:
    for several in found[1]:
        assert several["gathered"][1]["own"].tolist() == [[1.0 + 2.0 + 3.0] * 2]


def test_a_process_alone_gathers_its_own() -> None:
    assert rank_and_size() == (0, 1)
    own = torch.ones(2, 3)
    assert all_gather(own) is own
