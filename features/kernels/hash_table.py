"""A small hash table of whole numbers for compiled loops: open addressing, a quarter full at most.

A loop that looks up some hundred rows builds one on its way: it stays in the processor's cache, and a look-up
takes a few nanoseconds. Values lie in arrays of their own, by the cell of their key.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.kernels.compiled import compiled

IntArray = npt.NDArray[np.int32]


@compiled()
def empty_table(count: int) -> IntArray:
    """Return an empty table for so many keys of 0 or more, [cells]; -1 is no key."""
    cells = 16
    while cells < 4 * count:
        cells *= 2
    return np.full(cells, -1, dtype=np.int32)


@compiled()
def cell_of(keys: IntArray, key: int) -> int:
    """Return the cell of a table that holds a key, or the empty one where it belongs."""
    cell = ((key * 0x9E3779B1) >> 15) & (len(keys) - 1)
    while keys[cell] != key and keys[cell] != -1:
        cell = (cell + 1) & (len(keys) - 1)
    return cell


@compiled()
def table_of(rows: IntArray) -> tuple[IntArray, IntArray]:
    """Return a table of distinct rows, padded with -1, [rows], and the place of each by its cell, [cells]."""
    keys = empty_table(len(rows))
    places = np.empty(len(keys), dtype=np.int32)
    for place in range(len(rows)):
        if rows[place] >= 0:
            cell = cell_of(keys, rows[place])
            keys[cell], places[cell] = rows[place], place
    return keys, places
