"""Item tables divided among the processes of a training, for catalogues larger than one device's memory.

Each process holds a block of rows of a table (row-wise sharding, as TorchRec has it for embedding tables;
Ivchenko et al., RecSys 2022). A look-up gathers the rows that all processes ask for, each process looks up
those in its block, and DTensor's redistribution of partial sums sends every process the vectors that it asked
for; gradients return the same way. DTensor's own embedding would do all of it, but makes the gradient of the
whole table in every process.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Shard

from encoders.training.processes import rank_and_size


@dataclass(frozen=True)
class Block:
    """The rows of a table that this process holds."""

    count: int
    """Rows of the whole table."""
    size: int
    """Rows of every block; the last blocks may have fewer."""
    begin: int
    end: int
    group: distributed.ProcessGroup
    """Of the look-ups, so that their order is independent of DDP's reductions."""
    mesh: DeviceMesh

    @classmethod
    def of(cls, count: int, device: torch.device) -> Block:
        """Return this process's block of a table of `count` rows; called by all processes."""
        rank, ranks = rank_and_size()
        size = -(-count // ranks)
        group = distributed.new_group()
        assert isinstance(group, distributed.ProcessGroup)
        mesh = DeviceMesh.from_group(group, device.type)
        return cls(count, size, min(rank * size, count), min((rank + 1) * size, count), group, mesh)

    def cut(self, whole: Tensor) -> Tensor:
        """Return a copy of this process's rows of a table, [rows, ...]."""
        return whole[self.begin : self.end].clone()

    def gathered(self, own: Tensor) -> Tensor | None:
        """Return the whole table, on the CPU of the first process; None in the others."""
        rank, ranks = rank_and_size()
        padded = own.new_zeros((self.size, *own.shape[1:]), device="cpu")
        padded[: len(own)] = own.detach()
        parts = [torch.empty_like(padded) for _ in range(ranks)] if rank == 0 else None
        distributed.gather(padded, parts)
        return None if parts is None else torch.cat(parts)[: self.count]


def look_up(own: Tensor, rows: Tensor, block: Block) -> Tensor:
    """Return rows of a divided table, [rows, dim]; called by all processes, each with rows of its own.

    Args:
        own: the rows that this process holds, [block, dim].
        rows: those that it asks for, of the whole table, [rows].
        block: its block.

    """
    most = torch.tensor([len(rows)], device=rows.device)
    distributed.all_reduce(most, distributed.ReduceOp.MAX, group=block.group)
    asked = rows.new_zeros(int(most))
    asked[: len(rows)] = rows
    everyone = [torch.empty_like(asked) for _ in range(rank_and_size()[1])]
    distributed.all_gather(everyone, asked, group=block.group)
    place = torch.cat(everyone) - block.begin  # [processes * most]
    here = (place >= 0) & (place < len(own))
    # An empty block gets a row, so that its process takes part in the backward pass, too.
    held = own if len(own) else torch.cat([own, own.new_zeros((1, *own.shape[1:]))])
    found = nn.functional.embedding(place.masked_fill(~here, 0), held).masked_fill(~here[:, None], 0.0)
    mine = DTensor.from_local(found, block.mesh, [Partial()], run_check=False)
    answered: Tensor = mine.redistribute(placements=[Shard(0)]).to_local()  # [most, dim]
    return answered[: len(rows)]


class ShardedEmbedding(nn.Module):
    """An embedding of which each process holds a block of rows, in place of `nn.Embedding`."""

    def __init__(self, whole: nn.Embedding, block: Block) -> None:
        super().__init__()
        self.block = block
        kept = whole.weight.requires_grad
        self.weight = nn.Parameter(self.block.cut(whole.weight.detach()), requires_grad=kept)
        if kept:
            # As DDP averages the gradients of other weights over the processes.
            ranks = rank_and_size()[1]
            self.weight.register_hook(lambda gradient: gradient / ranks)  # type: ignore[no-untyped-call]

    def forward(self, rows: Tensor) -> Tensor:
        """Return vectors of rows, [..., dim]; called by all processes, each with rows of its own."""
        return look_up(self.weight, rows.flatten(), self.block).view(*rows.shape, self.weight.shape[1])


def best_of_blocks(values: Tensor, rows: Tensor, k: int) -> Tensor:
    """Return the rows of the k largest values over the blocks of all processes, [queries, k].

    Args:
        values: the largest of this process's block, [queries, at most k], -inf where a row is excluded.
        rows: of the whole table, like `values`; -1 where excluded.
        k: rows of the result, fewer where the table has fewer.

    """
    missing = k - values.shape[1]  # a block may have fewer rows than others
    values = nn.functional.pad(values, (0, missing), value=-torch.inf)
    rows = nn.functional.pad(rows, (0, missing), value=-1)
    ranks = rank_and_size()[1]
    all_values, all_rows = ([torch.empty_like(t) for _ in range(ranks)] for t in (values, rows))
    distributed.all_gather(all_values, values.contiguous())
    distributed.all_gather(all_rows, rows.contiguous())
    order = torch.cat(all_values, dim=1).topk(k, dim=1).indices
    return torch.cat(all_rows, dim=1).gather(1, order)


def clip_sharded_gradients(parameters: list[nn.Parameter], sharded: list[nn.Parameter], limit: float) -> None:
    """Scale gradients so that their joint norm is at most `limit`, in which every row of a table counts once.

    Args:
        parameters: those that all processes have.
        sharded: this process's rows.
        limit: of the norm.

    """
    own = torch.nn.utils.get_total_norm([p.grad for p in sharded if p.grad is not None]).square()
    distributed.all_reduce(own)
    common = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]).square()
    torch.nn.utils.clip_grads_with_norm_([*parameters, *sharded], limit, (own + common).sqrt())


def join_checkpoint(checkpoint: dict[str, Any], names: list[str], trained: int, block: Block) -> None:
    """Replace this process's rows in a checkpoint by whole tables, where the first process writes it.

    Args:
        checkpoint: as Lightning has made it.
        names: of the tables among the weights.
        trained: number of the trained table among the optimiser's parameters.
        block: the rows of this process.

    """
    for name in names:
        joined = block.gathered(checkpoint["state_dict"][name])
        checkpoint["state_dict"][name] = joined
    states = []
    for state in checkpoint.get("optimizer_states", []):
        by_number = dict(state["state"])  # not in place: its content is the optimiser's own
        if trained in by_number:
            by_number[trained] = {
                name: block.gathered(value) if value.dim() else value
                for name, value in by_number[trained].items()
            }
        states.append({**state, "state": by_number})
    if states:
        checkpoint["optimizer_states"] = states


def divide_checkpoint(checkpoint: dict[str, Any], names: list[str], trained: int, block: Block) -> None:
    """Replace whole tables in a checkpoint by this process's rows of them; see `join_checkpoint`."""
    for name in names:
        checkpoint["state_dict"][name] = block.cut(checkpoint["state_dict"][name])
    for state in checkpoint.get("optimizer_states", []):
        if trained in state["state"]:
            state["state"][trained] = {
                name: block.cut(value) if value.dim() else value
                for name, value in state["state"][trained].items()
            }
