"""Search over a changing catalogue: the bundle's immutable index, and brute force over later vectors.

The bundle's index is never written to: FAISS must not be modified during a search, and approximate indexes
do not support deletion. Its outdated rows (deleted items, changed vectors) are removed from its results;
changed and added vectors are searched by brute force, which is cheap up to some 100,000 of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.data.dataset import BoolArray, FloatArray, IntArray
from ranking.retrieval.exact import topk_columns
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.searcher import VectorSearcher
from ranking.retrieval.subset_index import SubsetIndex

_SPARE = 32
"""Extra rows fetched to replace outdated ones, before a search is repeated with a filter."""


@dataclass(frozen=True)
class LiveIndex(VectorSearcher):
    """One snapshot of the index."""

    base: VectorIndex | SubsetIndex
    outdated: BoolArray
    """[base rows] rows whose results from the base are invalid."""
    hidden_count: int
    """How many rows are outdated."""
    later_rows: IntArray
    """[later] rows searched by brute force: changed ones of the base, and all added ones."""
    later_vectors: tuple[FloatArray, ...]
    """Their vectors, in order, in one or more blocks [rows, dim]."""
    later_hidden: BoolArray
    """[later] rows among them that must not appear."""

    def search(
        self, queries: FloatArray, k: int, allowed: BoolArray | None = None
    ) -> tuple[IntArray, FloatArray]:
        """Return the best rows and their scores, each [queries, k], padded with -1 and -inf.

        Args:
            queries: [queries, dim].
            k: rows per query.
            allowed: [items] mask; rows outside are not considered.

        """
        found, scores = self._search_base(queries, k, allowed)
        if len(self.later_rows) == 0 or len(queries) == 0:
            return found, scores
        # In this order BLAS takes half as long: there are few queries.
        products = np.concatenate([block @ queries.T for block in self.later_vectors]).T
        barred = self.later_hidden if allowed is None else self.later_hidden | ~allowed[self.later_rows]
        products[:, barred] = -np.inf
        # Ties go to the base, so that only rows better than its worst result matter.
        better = np.flatnonzero((products > scores[:, -1:]).any(axis=0))
        if len(better) == 0:
            return found, scores
        both = np.concatenate([scores, products[:, better].astype(np.float32)], axis=1)
        order = topk_columns(both, k)
        best = np.take_along_axis(both, order, axis=1)
        rows = np.concatenate(
            [found, np.broadcast_to(self.later_rows[better], (len(found), len(better)))], axis=1
        )
        return np.where(np.isfinite(best), np.take_along_axis(rows, order, axis=1), -1).astype(np.int32), best

    def _search_base(
        self, queries: FloatArray, k: int, allowed: BoolArray | None
    ) -> tuple[IntArray, FloatArray]:
        if allowed is not None:
            inside = allowed if len(allowed) == len(self.base) else allowed[: len(self.base)]
            return self.base.search(queries, k, inside & ~self.outdated if self.hidden_count else inside)
        if self.hidden_count == 0:
            return self.base.search(queries, k)
        spare = min(self.hidden_count, _SPARE)
        rows, scores = self.base.search(queries, k + spare)
        dropped = (rows < 0) | self.outdated[np.maximum(rows, 0)]
        order = np.argsort(dropped, axis=1, kind="stable")[:, :k]
        kept = ~np.take_along_axis(dropped, order, axis=1)
        rows = np.where(kept, np.take_along_axis(rows, order, axis=1), -1).astype(np.int32)
        scores = np.where(kept, np.take_along_axis(scores, order, axis=1), -np.inf).astype(np.float32)
        if spare < self.hidden_count:
            expected = min(k, len(self.base) - self.hidden_count)
            short = np.flatnonzero((rows >= 0).sum(axis=1) < expected)
            if len(short):
                rows[short], scores[short] = self.base.search(queries[short], k, ~self.outdated)
        return rows, scores
