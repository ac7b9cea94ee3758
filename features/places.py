"""Sums over histories, added up per candidate: a look into a table instead of a search in sorted keys.

What a query's history says about items is mostly about items that are no candidates. A table with a cell per
item tells in a nanosecond which are; one table serves a whole batch, query after query.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.dataset import IntArray, LongArray

Floats = npt.NDArray[np.float64]


class Places:
    """Where items stand among the candidates of their query."""

    def __init__(self, rows: IntArray, items: int) -> None:
        """Prepare the table.

        Args:
            rows: candidates, each at most once per query, padded with -1, [queries, candidates].
            items: catalogue size.

        """
        self._shape = rows.shape
        real = rows >= 0
        numbers = np.arange(1, rows.size + 1, dtype=np.int32).reshape(rows.shape)
        self._candidates = [(row[r], number[r]) for row, r, number in zip(rows, real, numbers, strict=True)]
        # One cell more than items: padding of -1 looks there.
        self._table = np.zeros(items + 1, dtype=np.int32)

    def find(self, ids: IntArray, offsets: LongArray) -> LongArray:
        """Return the place of each item among all candidates of the batch, from 1; 0 where it is none.

        Args:
            ids: items that histories lead to, padded with -1, [events, any].
            offsets: events of each query, [queries + 1].

        """
        found = np.empty(ids.shape, dtype=np.int64)
        for query, (rows, numbers) in enumerate(self._candidates):
            part = slice(offsets[query], offsets[query + 1])
            self._table[rows] = numbers
            found[part] = self._table.take(ids[part])
            self._table[rows] = 0
        return found

    def sums(self, places: LongArray, values: npt.NDArray[np.floating] | None = None) -> Floats:
        """Add up values (ones by default) that share a place, [queries, candidates]."""
        weights = None if values is None else values.ravel()
        counted = np.bincount(places.ravel(), weights, minlength=1 + self._shape[0] * self._shape[1])
        return counted[1:].reshape(self._shape).astype(np.float64, copy=False)

    def largest(self, places: LongArray, values: LongArray, default: int) -> LongArray:
        """Return the largest value at each place, `default` where there is none, [queries, candidates]."""
        best = np.full(1 + self._shape[0] * self._shape[1], np.iinfo(np.int64).min)
        np.maximum.at(best, places, values)
        best[best == np.iinfo(np.int64).min] = default
        return best[1:].reshape(self._shape)
