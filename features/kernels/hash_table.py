"""A small hash table of integers for compiled loops: open addressing, a load factor of a quarter at most.

It is built per query: it stays in the processor's cache, and a look-up takes a few nanoseconds. Values are in
arrays of their own, by the cell of their key.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.kernels.compiled import compiled

IntArray = npt.NDArray[np.int32]


@compiled()
def empty_table(count: int) -> IntArray:
    """Return an empty table for `count` keys of 0 or more, [cells], filled with -1."""
    cells = 16
    while cells < 4 * count:
        cells *= 2
    return np.full(cells, -1, dtype=np.int32)


@compiled()
def cell_of(keys: IntArray, key: int) -> int:
    """Return the cell that holds a key, or the empty one to insert it."""
    cell = ((key * 0x9E3779B1) >> 15) & (len(keys) - 1)
    while keys[cell] != key and keys[cell] != -1:
        cell = (cell + 1) & (len(keys) - 1)
    return cell


@compiled()
def table_of(rows: IntArray) -> tuple[IntArray, IntArray]:
    """Return a table of distinct rows [rows], padded with -1, and the index of each by its cell, [cells]."""
    keys = empty_table(len(rows))
    indices = np.empty(len(keys), dtype=np.int32)
    for index in range(len(rows)):
        if rows[index] >= 0:
            cell = cell_of(keys, rows[index])
            keys[cell], indices[cell] = rows[index], index
    return keys, indices
