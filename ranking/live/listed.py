"""Which items have given items among their nearest texts: text neighbour lists, reversed.

An item's list does not have every item in whose list it is, so reading it in the other direction misses some.
"""

from __future__ import annotations

import numpy as np

from features.data.dataset import BoolArray, IntArray


class ListedIn:
    """Finds the rows whose lists have given rows; for the thread that runs the model."""

    def __init__(self, ids: IntArray) -> None:
        """Reverse the lists of a bundle.

        Args:
            ids: nearest rows of each row, [rows, k], padded with -1.

        """
        found = ids >= 0
        listed = ids[found]
        # A stable sort keeps the rows that have an item in ascending order.
        self._rows = np.nonzero(found)[0].astype(np.int32)[np.argsort(listed, kind="stable")]
        self._begins = np.concatenate(([0], np.cumsum(np.bincount(listed, minlength=len(ids)))))
        self._changed: IntArray = np.zeros(0, dtype=np.int32)
        """Rows with other lists than the bundle's, sorted."""

    def changed(self, rows: IntArray) -> None:
        """Take note of rows whose lists may have changed."""
        self._changed = np.union1d(self._changed, rows).astype(np.int32)

    def find(self, touched: IntArray, ids: IntArray) -> IntArray:
        """Return the rows whose lists have one of the given rows, sorted.

        Args:
            touched: the given rows.
            ids: nearest rows of each row as of now, [rows, k].

        """
        base = touched[touched < len(self._begins) - 1]
        parts = [self._rows[self._begins[row] : self._begins[row + 1]] for row in base.tolist()]
        given: BoolArray = np.zeros(len(ids) + 1, dtype=np.bool_)  # the last one for padding
        given[touched] = True
        parts.append(self._changed[given[ids[self._changed]].any(axis=1)])
        return np.unique(np.concatenate(parts)).astype(np.int32)
