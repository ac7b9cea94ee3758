"""Search over a catalogue that changes: the bundle's index, and beside it the vectors that came later.

The bundle's index is never written to: FAISS must not be changed while it is searched, and approximate
indexes cannot forget. Rows that it holds but that no longer count (deleted items, vectors that have changed)
are left out of its answers; changed and added vectors are compared one by one, which is cheap up to some
100,000 of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.data.dataset import BoolArray, FloatArray, IntArray
from ranking.retrieval.faiss_index import VectorIndex, best_places
from ranking.retrieval.searcher import VectorSearcher
from ranking.retrieval.subset_index import SubsetIndex

_SPARE = 32
"""Rows fetched beyond those requested, in place of hidden ones, before a search is repeated without them."""


@dataclass(frozen=True)
class LiveIndex(VectorSearcher):
    """One state of the index."""

    base: VectorIndex | SubsetIndex
    outdated: BoolArray
    """[base rows] rows of the base that must not be answered from it."""
    hidden_count: int
    """How many rows are outdated."""
    later_rows: IntArray
    """[later] rows that are searched one by one: changed ones of the base, and all that came after it."""
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
        # This way round BLAS takes half as long: there are few queries.
        products = np.concatenate([block @ queries.T for block in self.later_vectors]).T
        barred = self.later_hidden if allowed is None else self.later_hidden | ~allowed[self.later_rows]
        products[:, barred] = -np.inf
        # Of equal scores those of the base come first, so that only what is better than the worst one counts.
        better = np.flatnonzero((products > scores[:, -1:]).any(axis=0))
        if len(better) == 0:
            return found, scores
        both = np.concatenate([scores, products[:, better].astype(np.float32)], axis=1)
        order = best_places(both, k)
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
            wanted = min(k, len(self.base) - self.hidden_count)
            short = np.flatnonzero((rows >= 0).sum(axis=1) < wanted)
            if len(short):
                rows[short], scores[short] = self.base.search(queries[short], k, ~self.outdated)
        return rows, scores
