"""Divided tables: look-ups, gradients, clipping and validation are those of whole ones in one process."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn

from conf.encoders import UserEncoderConfig
from encoders.towers.towers import Towers
from encoders.training.processes import rank_and_size
from encoders.training.sharded_stage_two import ShardedStageTwo
from encoders.training.sharding import (  # fmt: skip
    Block,
    ShardedEmbedding,
    best_of_blocks,
    clip_sharded_gradients,
    divide_checkpoint,
    join_checkpoint,
)
from encoders.training.stage_two import StageTwo
from features.data.dataset import Dataset, FloatArray
from tests.encoders.towers.test_towers import Logged
from tests.encoders.training.test_processes import (  # fmt: skip
    TOWERS,
    Learnt,
    assert_learnt_alike,
    learnt,
    learnt_by_each,
)
from tests.encoders.training.test_stage_two_device import asked
from tests.synthetic import everything

CPU = torch.device("cpu")
TABLES = {"uneven": 7, "an empty block": 4}
"""Rows of a table that three processes divide: 3 + 3 + 1, 2 + 2 + 0."""
WANTED: tuple[list[int], ...] = ([0, 6, 3, 3], [5], [])
"""Rows that each process asks for, modulo the table's."""


def sharded_of(dataset: Dataset, vectors: FloatArray, config: UserEncoderConfig) -> ShardedStageTwo:
    torch.manual_seed(0)
    towers = Towers.from_config(config, vectors.shape[1], len(vectors), len(dataset.kinds))
    towers.item_tower.fit_text(vectors, np.arange(len(vectors)) % 5 > 0)
    return ShardedStageTwo(
        towers, config, dataset.events, everything(dataset), vectors, dataset.kind_weights,
        asked(dataset), True, 0,
    )  # fmt: skip


def whole_of(own: Tensor, block: Block) -> Tensor:
    """Return a table from everyone's block of it, in every process."""
    padded = own.new_zeros((block.size, *own.shape[1:]))
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in range(rank_and_size()[1])]
    distributed.all_gather(parts, padded)
    return torch.cat(parts)[: block.count]


def table_step(count: int) -> Learnt:
    """Look up rows, learn from them, and clip; one process asks for the rows of all."""
    rank, ranks = rank_and_size()
    torch.manual_seed(0)
    whole, other = nn.Embedding(count, 3), nn.Parameter(torch.ones(2))
    coefficients = torch.randn(3, 4, 3)
    if ranks == 1:
        found = [whole(torch.tensor(rows, dtype=torch.int64) % count) for rows in WANTED]
        loss = sum(
            ((v * c[: len(v)]).sum() for v, c in zip(found, coefficients, strict=True)), torch.zeros(())
        )
        (loss / 3 + other.sum()).backward()
        assert whole.weight.grad is not None
        torch.nn.utils.clip_grad_norm_([whole.weight, other], 0.5)
        return float(loss.detach() / 3), {"table": whole.weight.grad, "other": other.grad}  # type: ignore[dict-item]
    block = Block.of(count, CPU)
    table = ShardedEmbedding(whole, block)
    assert len(table.weight) == [min(block.size, max(count - r * block.size, 0)) for r in range(3)][rank]
    vectors = table(torch.tensor(WANTED[rank], dtype=torch.int64) % count)
    loss = (vectors * coefficients[rank][: len(vectors)]).sum()
    (loss + other.sum()).backward()
    clip_sharded_gradients([other], [table.weight], 0.5)
    gradient = torch.zeros_like(table.weight) if table.weight.grad is None else table.weight.grad
    total = loss.detach() / ranks
    distributed.all_reduce(total)
    assert other.grad is not None
    return float(total), {"table": whole_of(gradient, block), "other": other.grad}


def towers_step(module: ShardedStageTwo) -> Learnt:
    """Learn from the third batch, and validate."""
    module.log = Logged()  # type: ignore[assignment]
    alone = rank_and_size()[1] == 1
    if alone:
        module.__class__ = StageTwo  # type: ignore[assignment]
    else:
        module.divide(CPU)
        assert module.block is not None
        assert len(module.data.whitened) == module.block.end - module.block.begin < module.block.count
    for number, batch in enumerate(islice(module.train_dataloader(), 3)):
        module.on_train_batch_start(batch, number)
        loss = module.training_step(batch, number)
    table: Any = module.towers.item_tower.residual
    if alone:
        found = learnt(module, loss)
        with torch.inference_mode():
            module.validation_step(torch.zeros(1), 0)
    else:
        loss.backward()  # type: ignore[no-untyped-call]
        assert module.block is not None
        whole = whole_of(table.weight.grad, module.block)
        gradients = {n: p.grad for n, p in module.named_parameters() if p.grad is not None}
        del gradients["towers.item_tower.residual.weight"]
        value = loss.detach().clone()
        for tensor in (value, *gradients.values()):
            distributed.all_reduce(tensor)
            tensor /= rank_and_size()[1]
        found = float(value), {**gradients, "towers.item_tower.residual.weight": whole}
        with torch.inference_mode():
            module.validation_step(torch.zeros(1), 0)
    found[1]["recall"] = torch.tensor(module.log.values["valid_recall"])  # type: ignore[attr-defined]
    return found


def checkpoint_step() -> Learnt:
    """A table that is joined and divided again is the same, and the optimiser's own state is left alone."""
    rank, ranks = rank_and_size()
    whole = torch.arange(14.0).view(7, 2)
    if ranks == 1:
        return 0.0, {"table": whole, "moments": whole}
    block = Block.of(7, CPU)
    state = {0: {"exp_avg": block.cut(whole), "step": torch.tensor(3.0)}}
    checkpoint: dict[str, Any] = {
        "state_dict": {"a": block.cut(whole)},
        "optimizer_states": [{"state": dict(state), "param_groups": []}],
    }
    join_checkpoint(checkpoint, ["a"], 0, block)
    assert torch.equal(state[0]["exp_avg"], block.cut(whole))
    joined = [checkpoint["state_dict"]["a"], checkpoint["optimizer_states"][0]["state"][0]["exp_avg"]]
    assert all((table is None) == (rank > 0) for table in joined)
    distributed.broadcast_object_list(held := [checkpoint])
    divide_checkpoint(held[0], ["a"], 0, block)
    assert torch.equal(held[0]["state_dict"]["a"], block.cut(whole))
    moments = held[0]["optimizer_states"][0]["state"][0]
    assert moments["step"] == 3.0
    table = whole_of(held[0]["state_dict"]["a"], block)
    return 0.0, {"table": table, "moments": whole_of(moments["exp_avg"], block)}


def best_step() -> Learnt:
    """The best of each block, some excluded, some missing, are the best of all."""
    rank, ranks = rank_and_size()
    scores = torch.tensor([[0.1, 0.9, -torch.inf, 0.5, 0.3, 0.2, 0.8], [-torch.inf] * 5 + [1.0, -torch.inf]])
    expected = torch.tensor([[1, 6, 3], [5, -1, -1]])
    if ranks == 1:
        return 0.0, {"best": expected.float()}
    block = Block.of(7, CPU)
    part = scores[:, block.begin : block.end]
    best = part.topk(min(3, part.shape[1]), dim=1)
    rows = (best.indices + block.begin).masked_fill(best.values == -torch.inf, -1)
    return 0.0, {"best": best_of_blocks(best.values, rows, 3).float()}


@pytest.fixture(scope="module")
def found(
    dataset: Dataset, text_vectors: FloatArray, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Learnt], list[dict[str, Learnt]]]:
    """Return what one process learns in each case, and what each of several does."""
    jobs: dict[str, Callable[[], Learnt]] = {
        name: partial(towers_step, sharded_of(dataset, text_vectors, settings))
        for name, settings in TOWERS.items()
    }
    jobs |= {name: partial(table_step, count) for name, count in TABLES.items()}
    jobs |= {"checkpoint": checkpoint_step, "best": best_step}
    several = learnt_by_each(jobs, tmp_path_factory.mktemp("sharding"))
    return {name: job() for name, job in jobs.items()}, several


@pytest.mark.parametrize("case", [*TOWERS, *TABLES, "checkpoint", "best"])
def test_divided_tables_learn_what_whole_ones_do(
    case: str, found: tuple[dict[str, Learnt], list[dict[str, Learnt]]]
) -> None:
    assert_learnt_alike(case, *found)
