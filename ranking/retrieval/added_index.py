"""Exact search among the items added since a bundle was made.

They are few, and new for certain: how long a bundle's items without events have been on sale is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.data.dataset import BoolArray, FloatArray, IntArray
from ranking.retrieval.exact import topk_columns
from ranking.retrieval.searcher import VectorSearcher


@dataclass(frozen=True)
class AddedIndex(VectorSearcher):
    """Searches the rows that follow a bundle's."""

    first: int
    """Row of the first item."""
    vectors: FloatArray
    """[added, dim]"""
    hidden: BoolArray
    """[added] items that must not appear."""

    def search(
        self, queries: FloatArray, k: int, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return the best rows and their scores, each [queries, k]; see `VectorIndex.search`."""
        products = (self.vectors @ queries.T).T  # in this order BLAS takes half as long: queries are few
        products[:, self.hidden if allowed is None else self.hidden | ~allowed[self.first :]] = -np.inf
        order = topk_columns(products, min(k, len(self.vectors)))
        scores = np.take_along_axis(products, order, axis=1).astype(np.float32)
        rows = np.where(np.isfinite(scores), order + self.first, -1).astype(np.int32)
        more = ((0, 0), (0, k - rows.shape[1]))
        return np.pad(rows, more, constant_values=-1), np.pad(scores, more, constant_values=-np.inf)
