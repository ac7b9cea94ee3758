"""Dense scores of the whole catalogue on a device, and their top k."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from encoders.device import upload
from features.data.dataset import BoolArray, FloatArray, IntArray
from features.data.histories import HistoryBatch


class Floor:
    """Popularity as a fallback below a method's own scores, as `baseline_lists.popularity_floor`."""

    def __init__(self, share: FloatArray, known: BoolArray, device: torch.device) -> None:
        """Copy popularity [items], and the mask of items that the method covers [items], to a device."""
        self.device = device
        self.share, self.known = upload(share, device), upload(known, device)

    def under(self, scores: Tensor, covered: BoolArray) -> Tensor:
        """Return scores [queries, items] with the fallback; `covered` [queries] masks those with scores."""
        mask = upload(covered, self.device)[:, None] & self.known
        least = scores.masked_fill(~mask, 0.0).amin(dim=1, keepdim=True).clamp(max=0.0)
        return torch.where(mask, scores, least - 2.0 + self.share)


class DenseScores:
    """Catalogue vectors on a device, for methods that score by inner product."""

    def __init__(
        self, vectors: FloatArray, share: FloatArray, known: BoolArray, device: torch.device
    ) -> None:
        """Copy vectors [items, dim] to a device; see `Floor` for the other arguments."""
        self.vectors, self.floor = upload(vectors, device), Floor(share, known, device)

    def of(self, queries: FloatArray | Tensor, covered: BoolArray) -> Tensor:
        """Return the scores of vectors [queries, dim], [queries, items]; `covered` as in `Floor.under`."""
        if not isinstance(queries, Tensor):
            queries = upload(queries, self.floor.device)
        return self.floor.under(queries @ self.vectors.T, covered)


def best_of(
    scores: Tensor, histories: HistoryBatch, k: int, exclude_seen: bool, allowed: BoolArray | None
) -> tuple[IntArray, FloatArray]:
    """Return the k best columns of each row, as `baseline_lists.top_k`; ties by column.

    Args:
        scores: [queries, items] on any device; written to.
        histories: of the queries.
        k: list length.
        exclude_seen: leave out the items of each history.
        allowed: [items] mask of the items to list; None lists all.

    """
    if exclude_seen:
        owners, items = (
            upload(rows.astype(np.int64), scores.device) for rows in (histories.owners(), histories.items)
        )
        scores[owners, items] = -torch.inf
    if allowed is not None:
        scores.masked_fill_(~upload(allowed, scores.device), -torch.inf)
    values, columns = torch.sort(
        scores, dim=1, descending=True, stable=True
    )  # topk has no defined order of ties
    values, columns = values[:, :k], columns[:, :k].masked_fill(values[:, :k] == -torch.inf, -1)
    short = ((0, 0), (0, k - values.shape[1]))
    return (
        np.pad(columns.cpu().numpy().astype(np.int32), short, constant_values=-1),
        np.pad(values.cpu().numpy(), short, constant_values=-np.inf),
    )
