"""Rows by falling popularity, in which a row moves up without the rest being sorted again."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.data.dataset import BoolArray, FloatArray, IntArray
from features.kernels.compiled import compiled
from ranking.kernels.growable import GrowableArray

Scores = npt.NDArray[np.float64]


class PopularityOrder:
    """An order of rows that grows and in which rows rise; for the thread that runs the model.

    Hidden rows keep their places in the order of all rows, because a deleted item may come back.
    """

    def __init__(self, order: IntArray, popularity: FloatArray, room: int) -> None:
        """Begin with an order of all rows.

        Args:
            order: rows by falling popularity, [items]; equals in whatever order they shall have.
            popularity: of each row, 0 or more, [items].
            room: how many rows may be added.

        """
        self._order = GrowableArray(order, room)
        self._size = len(order)
        self._scores: Scores = np.zeros(len(order) + room, dtype=np.float64)
        self._scores[: len(order)] = popularity
        self._shown = self._order.view(self._size)

    def shown(self, size: int, hidden: BoolArray | None) -> IntArray:
        """Return the rows that may be seen, in order; it changes in place when rows rise.

        Args:
            size: rows of the catalogue; those that are new have no popularity and go last.
            hidden: [size] rows to leave out; None leaves none out.

        """
        added = np.arange(self._size, size)
        self._order.put(added, added)
        self._size = size
        every = self._order.view(size)
        self._shown = every if hidden is None else every[~hidden[every]]
        return self._shown

    def rise(self, rows: IntArray, by: Scores) -> None:
        """Add to the popularity of some rows, each named once, and move them to where they belong.

        Args:
            rows: which.
            by: how much, positive, [rows].

        """
        every, former = self._order.view(self._size), self._scores[rows]
        _rise(every, self._scores, rows, former + by)
        if len(self._shown) < len(every):
            self._scores[rows] = former
            _rise(self._shown, self._scores, rows, former + by)


@compiled()
def _rise(order: IntArray, scores: Scores, rows: IntArray, risen: Scores) -> None:
    """Give rows a higher score one after another, and move them up to behind those that have as much.

    Args:
        order: rows by falling score; a row that is not in it gets its score all the same.
        scores: of all rows; written to.
        rows: which rise.
        risen: their new scores, [rows].

    """
    for place in range(len(rows)):
        row, old, new = rows[place], scores[rows[place]], risen[place]
        low, high = 0, len(order)
        while low < high:  # the first place whose score is not above the old one
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
        while low < high:  # the first place whose score is below; of equals the lower row is first
            middle = (low + high) >> 1
            other = scores[order[middle]]
            if other > new or (other == new and order[middle] < row):
                low = middle + 1
            else:
                high = middle
        order[low + 1 : at + 1] = order[low:at].copy()
        order[low] = row
