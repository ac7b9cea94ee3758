"""Rows by descending popularity, updated incrementally."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.data.dataset import BoolArray, FloatArray, IntArray
from features.kernels.compiled import compiled
from ranking.kernels.growable import GrowableArray

Scores = npt.NDArray[np.float64]


class PopularityOrder:
    """An order in which rows are appended and rise; for the thread that runs the model.

    Hidden rows keep their positions, because a deleted item may be added again.
    """

    def __init__(self, order: IntArray, popularity: FloatArray, room: int) -> None:
        """Start with an order of all rows.

        Args:
            order: rows by descending popularity, [items], ties in any order.
            popularity: of each row, 0 or more, [items].
            room: how many rows may be added.

        """
        self._order = GrowableArray(order, room)
        self._size = len(order)
        self._scores: Scores = np.zeros(len(order) + room, dtype=np.float64)
        self._scores[: len(order)] = popularity
        self._shown = self._order.view(self._size)

    def shown(self, size: int, hidden: BoolArray | None) -> IntArray:
        """Return the visible rows, in order; the array changes in place when rows rise.

        Args:
            size: rows of the catalogue; those that are new have no popularity and go last.
            hidden: [size] mask of rows to leave out; None for none.

        """
        added = np.arange(self._size, size)
        self._order.put(added, added)
        self._size = size
        every = self._order.view(size)
        self._shown = every if hidden is None else every[~hidden[every]]
        return self._shown

    def rise(self, rows: IntArray, by: Scores) -> None:
        """Increase the popularity of rows and move them up.

        Args:
            rows: unique rows.
            by: positive increments, [rows].

        """
        every, former = self._order.view(self._size), self._scores[rows]
        _rise(every, self._scores, rows, former + by)
        if len(self._shown) < len(every):
            self._scores[rows] = former
            _rise(self._shown, self._scores, rows, former + by)


@compiled()
def _rise(order: IntArray, scores: Scores, rows: IntArray, risen: Scores) -> None:
    """Raise the scores of rows one after another, and move each up behind those of equal score.

    Args:
        order: rows by descending score; the score of a row outside it is raised, too.
        scores: of all rows; written to.
        rows: rows that rise.
        risen: their new scores, [rows].

    """
    for place in range(len(rows)):
        row, old, new = rows[place], scores[rows[place]], risen[place]
        low, high = 0, len(order)
        while low < high:  # the first position whose score is not above the old one
            middle = (low + high) >> 1
            if scores[order[middle]] > old:
                low = middle + 1
            else:
                high = middle
        at = low
        while at < len(order) and order[at] != row and scores[order[at]] == old:
            at += 1
        scores[row] = new
        if at == len(order) or order[at] != row:
            continue
        low, high = 0, at
        while low < high:  # the first position whose score is lower; ties by row
            middle = (low + high) >> 1
            other = scores[order[middle]]
            if other > new or (other == new and order[middle] < row):
                low = middle + 1
            else:
                high = middle
        order[low + 1 : at + 1] = order[low:at].copy()
        order[low] = row
