"""Several processes that train one model: which of them this is, and vectors that all of them need."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed


def place() -> tuple[int, int]:
    """Return this process's rank and how many train together."""
    if not distributed.is_initialized():
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()


class _Gathered(torch.autograd.Function):
    """All processes' tensors; the gradient of a part is the sum of those that all processes have for it."""

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


def gathered(own: Tensor) -> Tensor:
    """Return the tensors of all processes, [processes * n, ...], by rank; every process gives as many.

    Gradients flow back to the process that a part came from (as for the contrastive loss of Radford et al.,
    ICML 2021, where negatives come from all processes).
    """
    rank, ranks = place()
    if ranks == 1:
        return own
    whole: Tensor = _Gathered.apply(own, rank, ranks)  # type: ignore[no-untyped-call]
    return whole


def dealt(rows: np.ndarray) -> np.ndarray:
    """Return this process's share of an array that all have, dealt out one by one; all shares are as long.

    Where that does not come out even, some of the first are dealt once more.
    """
    rank, ranks = place()
    return np.resize(rows, -(-len(rows) // ranks) * ranks)[rank::ranks]


def collected(own: Tensor, count: int) -> Tensor:
    """Return what the processes have made of their shares, [count, ...], in the order before `dealt`."""
    by_rank = gathered(own).view(place()[1], len(own), *own.shape[1:])
    return by_rank.transpose(0, 1).flatten(0, 1)[:count]


def joint_mean(mean: Tensor, weights: Tensor) -> Tensor:
    """Return this process's part of a weighted mean over the examples of all processes.

    Gradients are averaged over the processes, not added; so is what this returns the mean over all examples.

    Args:
        mean: weighted mean over this process's examples.
        weights: theirs, [examples].

    """
    ranks = place()[1]
    if ranks == 1:
        return mean
    own = weights.sum()
    total = own.clone()
    distributed.all_reduce(total)
    return mean * (ranks * own / total.clamp(min=1e-9))
