"""Top-k of rows whose scores arrive in tiles, so that users x items is never in memory.

Each row keeps a heap of its k best with the worst at the root; a score that does not beat the root costs one
comparison. Ties go to the smaller column, whatever the tiles.
"""

from __future__ import annotations

import numpy as np

from features.data.dataset import FloatArray, IntArray, LongArray
from features.kernels.compiled import compiled

TILE: tuple[int, int] = (512, 16_384)
"""Rows and columns of scores held at a time (32 MB)."""


@compiled()
def _worse(a: np.float32, a_column: np.int32, b: np.float32, b_column: np.int32) -> bool:
    """Return whether a goes behind b."""
    return bool(a < b or (a == b and a_column > b_column))


@compiled()
def _push(scores: FloatArray, first: int, values: FloatArray, columns: IntArray) -> None:
    """Put a tile [rows, tile] of columns from `first` on into the heaps [rows, k]."""
    k = values.shape[1]
    for row in range(len(scores)):
        heap, names = values[row], columns[row]
        for place in range(scores.shape[1]):
            score = scores[row, place]
            if not score > heap[0]:  # a later column loses a tie
                continue
            name = np.int32(first + place)
            at = 0
            while True:
                child = 2 * at + 1
                if child >= k:
                    break
                other = child + 1
                if other < k and _worse(heap[other], names[other], heap[child], names[child]):
                    child = other
                if not _worse(heap[child], names[child], score, name):
                    break
                heap[at], names[at] = heap[child], names[child]
                at = child
            heap[at], names[at] = score, name


def _in_order(values: FloatArray, columns: IntArray) -> None:
    """Sort heaps in place, best first, ties by column; columns of -inf become -1."""
    columns[np.isneginf(values)] = -1
    order = np.lexsort((columns, -values), axis=1)
    values[:] = np.take_along_axis(values, order, axis=1)
    columns[:] = np.take_along_axis(columns, order, axis=1)


def top_columns(scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Return the k best columns of each row, ties by column.

    Args:
        scores: [rows, items] float32; entries of -inf are never listed.
        k: columns per row, 1 or more.

    Returns:
        Columns padded with -1 and scores padded with -inf, [rows, k] each, best first.
    """
    values = np.full((len(scores), k), -np.inf, dtype=np.float32)
    columns = np.full((len(scores), k), -1, dtype=np.int32)
    _push(np.ascontiguousarray(scores, dtype=np.float32), 0, values, columns)
    _in_order(values, columns)
    return columns, values


def rank_vectors(
    users: FloatArray, items: FloatArray, k: int, seen: tuple[LongArray, IntArray] | None = None
) -> tuple[IntArray, FloatArray]:
    """Return the k items with the largest inner products with each user vector, over the whole catalogue.

    Args:
        users: [users, dim] float32.
        items: [items, dim] float32.
        k: items per user.
        seen: offsets [users + 1] and rows [total] of the items to leave out, per user.

    Returns:
        Rows padded with -1 and products padded with -inf, [users, k] each, best first, ties by row.
    """
    values = np.full((len(users), k), -np.inf, dtype=np.float32)
    columns = np.full((len(users), k), -1, dtype=np.int32)
    if seen is not None:
        owners = np.repeat(np.arange(len(users), dtype=np.int64), np.diff(seen[0]))
        order = np.lexsort((seen[1], owners))
        owners, rows = owners[order], seen[1][order].astype(np.int64)
        keys = owners * len(items) + rows
    height, width = TILE
    buffer = np.empty((height, width), dtype=np.float32)
    for top in range(0, len(users), height):
        block = slice(top, min(top + height, len(users)))
        if seen is not None:
            low, high = np.searchsorted(owners, [block.start, block.stop])
            own = keys[low:high]
        for left in range(0, len(items), width):
            tile = items[left : left + width]
            if len(tile) == width and block.stop - block.start == height:
                scores = np.matmul(users[block], tile.T, out=buffer)
            else:
                scores = users[block] @ tile.T
            if seen is not None:
                column = own % len(items)
                inside = (column >= left) & (column < left + len(tile))
                scores[own[inside] // len(items) - top, column[inside] - left] = -np.inf
            _push(scores, left, values[block], columns[block])
        _in_order(values[block], columns[block])
    return columns, values
