"""How like each candidate is to its user's vector and to what the user chose last, in one space of vectors.

Fetching the vectors of some hundred candidates from memory costs more than the arithmetic on them. So each is
fetched once for everything that is compared with it, query by query: the vectors of one query stay in the
processor's cache, and a query's numbers do not depend on the queries beside it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from features.dataset import BoolArray, FloatArray, IntArray
from features.histories import HistoryBatch


class Likeness(NamedTuple):
    """Each [queries, candidates]; 0 at padding."""

    product: FloatArray
    """Inner product with the user's vector."""
    largest: FloatArray
    """Largest cosine to an event of the history; 0 where there is none, as the others."""
    mean: FloatArray
    last: FloatArray
    """Cosine to the newest event."""

    @property
    def cosines(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Largest, mean and newest."""
        return self.largest, self.mean, self.last


def likeness(
    rows: IntArray,
    vectors: FloatArray,
    users: FloatArray | None = None,
    history: HistoryBatch | None = None,
    unit: bool = True,
) -> Likeness:
    """Compare candidates with users and their histories.

    Args:
        rows: candidates, padded with -1, [queries, candidates].
        vectors: of the items, [items, dim].
        users: [queries, dim]; None leaves the products 0.
        history: the events to compare with, oldest first; None leaves the cosines 0.
        unit: whether the vectors are of unit length (or zero).

    """
    found = Likeness(*np.zeros((4, *rows.shape), dtype=np.float32))
    for query, row in enumerate(rows):
        real = _real(row)
        block = vectors.take(row[real], axis=0)  # [real, dim]
        if users is not None:
            # Not @: BLAS rounds a row by its place among the others, and copies of an item would not tie.
            found.product[query, real] = np.vecdot(block, users[query])
        if history is None or not vectors.shape[1]:
            continue
        items = history.items[history.offsets[query] : history.offsets[query + 1]]
        if len(items):
            chosen = vectors.take(items, axis=0)
            cosines = (block @ np.ascontiguousarray(chosen.T)).T.copy()  # [events, real]
            if not unit:
                cosines /= _lengths(chosen)[:, None] * _lengths(block)
            found.largest[query, real] = cosines.max(axis=0)
            found.mean[query, real] = cosines.sum(axis=0) / len(items)
            found.last[query, real] = cosines[-1]
    return found


def _real(row: IntArray) -> slice | BoolArray:
    """Return where a query has candidates; mostly a slice will do, which is cheaper than a mask."""
    real: BoolArray = row >= 0
    count = int(np.count_nonzero(real))
    return slice(count) if real[:count].all() else real


def _lengths(vectors: FloatArray) -> FloatArray:
    """Return the length of each vector, [any]; never 0."""
    lengths: FloatArray = np.maximum(np.sqrt(np.vecdot(vectors, vectors)), np.float32(1e-9))
    return lengths
