"""Top-k of rows whose scores arrive in tiles, so that users x items is never in memory.

Each row keeps a heap of its k best with the worst at the root; a score that does not beat the root costs one
comparison. Ties go to the smaller column, whatever the tiles.
"""

from __future__ import annotations

import numpy as np

from features.data.dataset import FloatArray, IntArray, LongArray
from features.kernels.compiled import compiled

TILE: tuple[int, int] = (512, 4096)
"""Rows and columns of scores held at a time (8 MB)."""
CHUNK: int = 128
"""Scores that are compared with a row's worst listed one at once, by their largest."""


@compiled()
def _worse(a: np.float32, a_column: np.int32, b: np.float32, b_column: np.int32) -> bool:
    """Return whether a goes behind b."""
    return bool(a < b or (a == b and a_column > b_column))


@compiled()
def _sift(heap: FloatArray, names: IntArray, size: int, score: np.float32, name: np.int32) -> None:
    """Replace the root of a heap, its worst entry, by another one; the heap has its first `size` entries."""
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        other = child + 1
        if other < size and _worse(heap[other], names[other], heap[child], names[child]):
            child = other
        if not _worse(heap[child], names[child], score, name):
            break
        heap[at], names[at] = heap[child], names[child]
        at = child
    heap[at], names[at] = score, name


@compiled()
def _push(
    scores: FloatArray, bits: IntArray, first: int, values: FloatArray, worst: IntArray, columns: IntArray
) -> None:
    """Put a tile [rows, tile] of columns from `first` on into the heaps [rows, k].

    Where a row's worst listed score is not negative, single precision is ordered as the integers that its
    bits are, of which the largest of a chunk is found with vector instructions; a chunk without a better
    score is left out. A NaN is never listed.

    Args:
        scores: of the tile.
        bits: the same memory as int32.
        first: column of the tile's first one.
        values: scores listed so far.
        worst: the memory of `values` as int32.
        columns: listed so far.
    """
    k = values.shape[1]
    for row in range(len(scores)):
        heap, names = values[row], columns[row]
        for start in range(0, scores.shape[1], CHUNK):
            stop = min(start + CHUNK, scores.shape[1])
            if heap[0] >= 0 and stop - start == CHUNK:
                chunk = bits[row, start:stop]
                largest = np.int32(-1)  # of a negative score, no better than the worst listed one
                for place in range(CHUNK):  # a constant number, for vector instructions
                    largest = largest if largest > chunk[place] else chunk[place]
                if largest <= worst[row, 0]:
                    continue
            for place in range(start, stop):
                score = scores[row, place]
                if score > heap[0]:  # a later column loses a tie
                    _sift(heap, names, k, score, np.int32(first + place))


@compiled()
def _hide(scores: FloatArray, top: int, first: int, offsets: LongArray, seen: IntArray) -> None:
    """Give the columns to leave out -inf in a tile of rows from `top` and columns from `first` on."""
    rows, width = scores.shape
    for row in range(rows):
        for place in range(offsets[top + row], offsets[top + row + 1]):
            column = np.int64(seen[place]) - first
            if 0 <= column < width:
                scores[row, column] = -np.inf


@compiled()
def _in_order(values: FloatArray, columns: IntArray) -> None:
    """Sort heaps in place, best first, ties by column; columns of -inf become -1 (heapsort)."""
    for row in range(len(values)):
        heap, names = values[row], columns[row]
        for last in range(len(heap) - 1, 0, -1):
            score, name = heap[last], names[last]
            heap_root, name_root = heap[0], names[0]
            _sift(heap, names, last, score, name)
            heap[last], names[last] = heap_root, name_root
        for place in range(len(heap)):
            if heap[place] == -np.inf:
                names[place] = -1


def _list(scores: FloatArray, first: int, values: FloatArray, columns: IntArray) -> None:
    """Put a tile of contiguous scores into the heaps."""
    _push(scores, scores.view(np.int32), first, values, values.view(np.int32), columns)


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
    _list(np.ascontiguousarray(scores, dtype=np.float32), 0, values, columns)
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
    height, width = TILE
    buffer = np.empty(height * width, dtype=np.float32)
    for top in range(0, len(users), height):
        block = slice(top, min(top + height, len(users)))
        size = block.stop - top
        for left in range(0, len(items), width):
            tile = items[left : left + width]
            scores = buffer[: size * len(tile)].reshape(size, len(tile))
            np.matmul(users[block], tile.T, out=scores)
            if seen is not None:
                _hide(scores, top, left, *seen)
            _list(scores, left, values[block], columns[block])
        _in_order(values[block], columns[block])
    return columns, values
