"""Search among the items that were added after a bundle was made, by comparing all of them.

They are few, and they are what a shop calls new: of a bundle's items without any event it is unknown for how
long they have found no buyer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.data.dataset import BoolArray, FloatArray, IntArray
from ranking.retrieval.faiss_index import best_places
from ranking.retrieval.searcher import VectorSearcher


@dataclass(frozen=True)
class AddedIndex(VectorSearcher):
    """Searches the rows behind a bundle's."""

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
        products = (self.vectors @ queries.T).T  # this way round BLAS takes half as long: queries are few
        products[:, self.hidden if allowed is None else self.hidden | ~allowed[self.first :]] = -np.inf
        order = best_places(products, min(k, len(self.vectors)))
        scores = np.take_along_axis(products, order, axis=1).astype(np.float32)
        rows = np.where(np.isfinite(scores), order + self.first, -1).astype(np.int32)
        more = ((0, 0), (0, k - rows.shape[1]))
        return np.pad(rows, more, constant_values=-1), np.pad(scores, more, constant_values=-np.inf)
