"""Search among a subset of a catalogue's rows, by an index over their vectors."""

from __future__ import annotations

import numpy as np

from features.data.dataset import BoolArray, FloatArray, IntArray
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.searcher import VectorSearcher


class SubsetIndex(VectorSearcher):
    """Searches a subset of a catalogue; returns rows of the whole."""

    def __init__(self, base: VectorIndex, rows: IntArray, items: int) -> None:
        """Wrap an index.

        Args:
            base: over the vectors of the rows, in order.
            rows: the rows of the subset, [subset].
            items: catalogue size.

        """
        self.base = base
        self.rows = rows
        self._items = items

    def __len__(self) -> int:
        return self._items

    def search(
        self, queries: FloatArray, k: int, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return the best rows of the subset and their scores; see `VectorIndex.search`."""
        found, scores = self.base.search(queries, k, None if allowed is None else allowed[self.rows])
        rows = self.rows[np.maximum(found, 0)] if len(self.rows) else found
        return np.where(found < 0, -1, rows).astype(np.int32), scores
