"""Scores of the whole catalogue as products on a device beside the CPU, and the best of them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from encoders.device import upload
from features.data.dataset import BoolArray, FloatArray, IntArray
from features.data.histories import HistoryBatch


class Floor:
    """What a method says nothing about, behind everything else, as `baseline_lists.popularity_floor` does."""

    def __init__(self, share: FloatArray, known: BoolArray, device: torch.device) -> None:
        """Bring popularity [items], and the items that the method knows at all [items], to a device."""
        self.device = device
        self.share, self.known = upload(share, device), upload(known, device)

    def under(self, scores: Tensor, said: BoolArray) -> Tensor:
        """Return scores [queries, items] with the floor under them; `said`, [queries], is who has any."""
        spoken = upload(said, self.device)[:, None] & self.known
        least = scores.masked_fill(~spoken, 0.0).amin(dim=1, keepdim=True).clamp(max=0.0)
        return torch.where(spoken, scores, least - 2.0 + self.share)


class DenseScores:
    """The catalogue's vectors on a device, for methods whose scores are inner products with them."""

    def __init__(
        self, vectors: FloatArray, share: FloatArray, known: BoolArray, device: torch.device
    ) -> None:
        """Bring vectors [items, dim] there; see `Floor` for the others."""
        self.vectors, self.floor = upload(vectors, device), Floor(share, known, device)

    def of(self, queries: FloatArray | Tensor, said: BoolArray) -> Tensor:
        """Return the scores of vectors [queries, dim], [queries, items]; `said` as in `Floor.under`."""
        if not isinstance(queries, Tensor):
            queries = upload(queries, self.floor.device)
        return self.floor.under(queries @ self.vectors.T, said)


def best_of(
    scores: Tensor, histories: HistoryBatch, k: int, exclude_seen: bool, allowed: BoolArray | None
) -> tuple[IntArray, FloatArray]:
    """Return the k best columns of each row, as `baseline_lists.top_k` does; equal ones by column.

    Args:
        scores: [queries, items] on any device; written to.
        histories: of the queries.
        k: list length.
        exclude_seen: leave out the items of each history.
        allowed: [items] what lists are made from; None is everything.

    """
    if exclude_seen:
        owners, items = (
            upload(rows.astype(np.int64), scores.device) for rows in (histories.owners(), histories.items)
        )
        scores[owners, items] = -torch.inf
    if allowed is not None:
        scores.masked_fill_(~upload(allowed, scores.device), -torch.inf)
    values, columns = torch.sort(scores, dim=1, descending=True, stable=True)  # topk orders ties as it likes
    values, columns = values[:, :k], columns[:, :k].masked_fill(values[:, :k] == -torch.inf, -1)
    short = ((0, 0), (0, k - values.shape[1]))
    return (
        np.pad(columns.cpu().numpy().astype(np.int32), short, constant_values=-1),
        np.pad(values.cpu().numpy(), short, constant_values=-np.inf),
    )
