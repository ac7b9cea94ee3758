"""Collective operations of the processes that train one model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed


def rank_and_size() -> tuple[int, int]:
    """Return this process's rank and the number of processes."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


class _Gathered(torch.autograd.Function):
    """All processes' tensors, concatenated; a part's gradient is summed over the processes."""

    @staticmethod
    def forward(ctx: Any, own: Tensor, rank: int, ranks: int) -> Tensor:  # noqa: ANN401 - torch's own context
        ctx.rank, ctx.ranks = rank, ranks
        parts = [torch.empty_like(own) for _ in range(ranks)]
        distributed.all_gather(parts, own.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # noqa: ANN401
        total = grad.clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total.chunk(ctx.ranks)[ctx.rank], None, None


def all_gather(own: Tensor) -> Tensor:
    """Return the tensors of all processes, [processes * n, ...], by rank; all have the same shape.

    Gradients flow back to the process that a part came from (as for the contrastive loss of Radford et al.,
    ICML 2021, where negatives come from all processes).
    """
    rank, ranks = rank_and_size()
    if ranks == 1:
        return own
    whole: Tensor = _Gathered.apply(own, rank, ranks)  # type: ignore[no-untyped-call]
    return whole


def shard(rows: np.ndarray) -> np.ndarray:
    """Return this process's shard of an array, every n-th row; all shards have the same length.

    Where the length is no multiple of the number of processes, some of the first rows are repeated.
    """
    rank, ranks = rank_and_size()
    return np.resize(rows, -(-len(rows) // ranks) * ranks)[rank::ranks]


def gather_shards(own: Tensor, count: int) -> Tensor:
    """Gather the results of the processes' shards, [count, ...], in the order before `shard`."""
    by_rank = all_gather(own).view(rank_and_size()[1], len(own), *own.shape[1:])
    return by_rank.transpose(0, 1).flatten(0, 1)[:count]


def joint_mean(mean: Tensor, weights: Tensor) -> Tensor:
    """Return this process's part of a weighted mean over the examples of all processes.

    Gradients are averaged over the processes, so the mean of the returned values is that over all examples.

    Args:
        mean: weighted mean over this process's examples.
        weights: theirs, [examples].

    """
    ranks = rank_and_size()[1]
    if ranks == 1:
        return mean
    own = weights.sum()
    total = own.clone()
    distributed.all_reduce(total)
    return mean * (ranks * own / total.clamp(min=1e-9))
