"""Several processes compute the loss and the gradients of one that has the whole batch."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import distributed, nn
from torch.multiprocessing.spawn import start_processes

from conf.encoders import TextEncoderConfig
from encoders.processes import gathered, place
from encoders.stage_one import StageOne
from encoders.text_encoder import load_text_encoder
from features.dataset import Dataset
from tests.encoders.test_stage_one import SETTINGS, module_of

RANKS = 3
CASES = {
    "plain": SETTINGS,
    "head and weights": replace(SETTINGS, projection=8, batch_size=2),
    "dropped fields and mined negatives": replace(SETTINGS, field_dropout=0.4, hard_negatives=2),
    "no corrections": replace(SETTINGS, logq=False, mask_false_negatives=False, recompute=False),
}
Learnt = tuple[float, dict[str, torch.Tensor]]
"""Loss and gradients by parameter."""


def learnt(module: nn.Module, loss: torch.Tensor) -> Learnt:
    """Return a loss and its gradients, averaged over the processes as DDP averages them."""
    module.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: p.grad for name, p in module.named_parameters() if p.grad is not None}
    ranks = place()[1]
    value = loss.detach().clone()
    if ranks > 1:
        for tensor in (value, *gradients.values()):
            distributed.all_reduce(tensor)
            tensor /= ranks
    return float(value), gradients


def stage_one_step(module: StageOne) -> Learnt:
    module.on_train_epoch_start()
    return learnt(module, module._loss(next(iter(module.train_dataloader()))))


def gathered_step() -> Learnt:
    """Each process's weight counts once for every process that reads it."""
    rank, ranks = place()
    own = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        own.weight.copy_(torch.tensor([[rank + 1.0, 10.0 * (rank + 1)]]))
    whole = gathered(own.weight)
    assert whole.tolist() == [[r + 1.0, 10.0 * (r + 1)] for r in range(ranks)]
    (whole * (rank + 1.0)).sum().backward()  # type: ignore[no-untyped-call]
    assert own.weight.grad is not None
    return 0.0, {"own": own.weight.grad}


def work(rank: int, port: int, modules: dict[str, StageOne], folder: Path) -> None:
    """Take each step as one of several processes and write what the first of them has learnt."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=RANKS)
    found = {name: stage_one_step(module) for name, module in modules.items()}
    found["gathered"] = gathered_step()
    torch.save(found, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def found(
    dataset: Dataset, bert: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Learnt], list[dict[str, Learnt]]]:
    """Return what one process learns in each case, and what each of several does."""
    config = TextEncoderConfig(model=str(bert), max_tokens=24)
    folder = tmp_path_factory.mktemp("processes")
    modules = {
        # Without dropout, which every process draws for itself.
        name: module_of(dataset, load_text_encoder(config).eval(), settings)
        for name, settings in CASES.items()
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_processes(work, (port, modules, folder), nprocs=RANKS, start_method="spawn")  # type: ignore[no-untyped-call]
    alone = {name: stage_one_step(module) for name, module in modules.items()}
    return alone, [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.parametrize("case", CASES)
def test_processes_learn_what_one_learns_from_the_joint_batch(
    case: str, found: tuple[dict[str, Learnt], list[dict[str, Learnt]]]
) -> None:
    alone, several = found
    loss, expected = alone[case]
    assert max(float(gradient.abs().max()) for gradient in expected.values()) > 1e-3
    for rank in range(RANKS):
        value, gradients = several[rank][case]
        assert value == pytest.approx(loss, rel=1e-5)
        assert gradients.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(gradients[name], gradient, rtol=1e-4, atol=1e-6, msg=name)


def test_a_gathered_part_gets_the_gradients_of_all_processes(
    found: tuple[dict[str, Learnt], list[dict[str, Learnt]]],
) -> None:
    for several in found[1]:
        assert several["gathered"][1]["own"].tolist() == [[1.0 + 2.0 + 3.0] * 2]


def test_a_process_alone_gathers_its_own() -> None:
    assert place() == (0, 1)
    own = torch.ones(2, 3)
    assert gathered(own) is own
