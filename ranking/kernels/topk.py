"""Rows by falling value: both packed into one whole number, which numpy sorts with vector instructions.

The row lies in the 31 bits below the value, so that equal values go by row and nothing else has to be carried
along: sorting some hundred of them takes two microseconds. Compiled loops make them, because numpy would need
a dozen calls, and because a loop can have vectors fetched ahead.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.data.dataset import FloatArray, IntArray, LongArray
from features.kernels.compiled import compiled
from features.kernels.prefetch import LINE, fetch

Bytes = npt.NDArray[np.uint8]

AHEAD = 8
"""Vectors by which fetching is ahead of multiplying."""
EVENTS_AHEAD = 4
"""Events by which fetching is ahead of reading what they give."""
NOTHING = np.int64(np.iinfo(np.int64).max)
"""Key of no row; it goes last."""
LOW = 31
"""Bits below the value, or below the row where a place is packed with it."""
MASK = np.int64((1 << LOW) - 1)


@compiled()
def _key(bits: IntArray, row: int) -> np.int64:
    """Pack a row with a float32, given by its bits, [1]; they rise with it, unless it is negative."""
    key: np.int64 = (np.int64(~(bits[0] ^ ((bits[0] >> 31) & 0x7FFFFFFF))) << LOW) | np.int64(row)
    return key


@compiled("contract", "reassoc")
def _product_keys(queries: FloatArray, vectors: FloatArray, rows: LongArray) -> LongArray:
    keys = np.full(rows.shape, NOTHING, dtype=np.int64)
    value = np.empty(1, dtype=np.float32)
    bits = value.view(np.int32)
    last = rows.shape[1] - 1
    for query in range(len(rows)):
        query_vector = queries[query]
        for place in range(rows.shape[1]):
            ahead = rows[query, min(place + AHEAD, last)]
            if ahead >= 0:
                for i in range(0, vectors.shape[1], LINE):
                    fetch(vectors, ahead, i)
            row = rows[query, place]
            if row >= 0:
                vector, product = vectors[row], np.float32(0.0)
                for i in range(len(query_vector)):
                    product += vector[i] * query_vector[i]
                value[0] = product + np.float32(0.0)  # -0.0 is 0.0
                keys[query, place] = _key(bits, row)
    return keys


@compiled()
def places(rows: IntArray) -> LongArray:
    """Pack rows, padded with -1, with where they stand, [queries, any]; `NOTHING` at padding."""
    packed = np.full(rows.shape, NOTHING, dtype=np.int64)
    for query in range(len(rows)):
        for place in range(rows.shape[1]):
            if rows[query, place] >= 0:
                packed[query, place] = (np.int64(rows[query, place]) << LOW) | place
    return packed


class NeighbourWeights(NamedTuple):
    """Events of histories, and which rows each of them gives how much weight to."""

    items: IntArray
    """Of the events, oldest first, [total events]."""
    offsets: LongArray
    """Events of each query, [queries + 1]."""
    recent: int
    """How many of the newest events of each history give anything."""
    scale: float
    """A weight halves after so many events."""
    ids: IntArray
    """Rows that an event's item gives weight to, padded with -1, [items, any]."""
    weights: FloatArray
    """How much of it, [items, any]."""


@compiled()
def _weighted_rows(
    neighbours: NeighbourWeights, mask: LongArray, masks: Bytes
) -> tuple[LongArray, FloatArray]:
    """Return what events give: rows packed with their places, and weights, both [queries, places]."""
    items, offsets, recent, scale, ids, weights = neighbours
    wide, events = ids.shape[1], 0
    for query in range(len(mask)):
        events = max(events, min(recent, offsets[query + 1] - offsets[query]))
    packed = np.full((len(mask), events * wide), NOTHING, dtype=np.int64)
    given = np.empty(packed.shape, dtype=np.float32)
    for query in range(len(mask)):
        bits, stop = mask[query], offsets[query + 1]
        first = max(offsets[query], stop - recent)
        place = 0
        for event in range(first, stop):
            if event + EVENTS_AHEAD < stop:
                for k in range(0, wide, LINE):
                    fetch(ids, items[event + EVENTS_AHEAD], k)
                    fetch(weights, items[event + EVENTS_AHEAD], k)
            item, weight = items[event], np.float32(1.0 / (1.0 + (stop - 1 - event) / scale))
            for k in range(wide):
                row = ids[item, k]
                if row >= 0 and (bits < 0 or masks[bits, row >> 3] >> (row & 7) & 1):
                    packed[query, place] = (np.int64(row) << LOW) | place
                    given[query, place] = weights[item, k] * weight
                place += 1
    return packed, given


@compiled()
def _sum_keys(packed: LongArray, given: FloatArray, excluded: LongArray, catalogue: int) -> LongArray:
    """Pack rows with the sums of what is given to them; they are packed with their places, and sorted."""
    keys = np.full(packed.shape, NOTHING, dtype=np.int64)
    value = np.empty(1, dtype=np.float32)
    bits = value.view(np.int32)
    at = 0  # what is excluded is sorted just as the rows are
    for query in range(len(packed)):
        place, count = 0, 0
        while place < packed.shape[1] and packed[query, place] != NOTHING:
            row, total = packed[query, place] >> LOW, 0.0
            while place < packed.shape[1] and packed[query, place] >> LOW == row:
                total += given[query, packed[query, place] & MASK]
                place += 1
            key = query * catalogue + row
            while at < len(excluded) and excluded[at] < key:
                at += 1
            if at == len(excluded) or excluded[at] != key:
                value[0] = np.float32(total) + np.float32(0.0)
                keys[query, count] = _key(bits, row)
                count += 1
    return keys


@compiled()
def _first(keys: LongArray, k: int) -> tuple[IntArray, FloatArray]:
    """Return the first k rows of sorted keys, padded with -1, and their values, -inf there, [queries, k]."""
    rows = np.full((len(keys), k), -1, dtype=np.int32)
    values = np.full((len(keys), k), -np.inf, dtype=np.float32)
    bits = values.view(np.int32)
    for query in range(len(keys)):
        for place in range(min(k, keys.shape[1])):
            key = keys[query, place]
            if key == NOTHING:
                break
            rows[query, place] = key & MASK
            value = ~np.int32(key >> LOW)
            bits[query, place] = value ^ ((value >> 31) & 0x7FFFFFFF)
    return rows, values


def best_products(
    queries: FloatArray, vectors: FloatArray, rows: LongArray, k: int
) -> tuple[IntArray, FloatArray]:
    """Return the rows whose vectors have the largest inner products with a query, and these products.

    Args:
        queries: [queries, dim].
        vectors: of the items, [items, dim].
        rows: among which to look, each once, padded with -1, [queries, any].
        k: how many to return.

    Returns:
        Rows padded with -1 and products padded with -inf, each [queries, k].

    """
    keys = _product_keys(np.ascontiguousarray(queries), vectors, rows)
    keys.sort(axis=1)
    return _first(keys, k)


def best_sums(
    neighbours: NeighbourWeights, k: int, mask: LongArray, masks: Bytes, excluded: LongArray, catalogue: int
) -> IntArray:
    """Sum the weights that the newest events of histories give to rows; return those with the most.

    Args:
        neighbours: the events and their neighbours with weights.
        k: rows per query.
        mask: which of the masks leaves out rows of a query, -1 for none, [queries].
        masks: bits of the rows that may be returned, the lowest first, [any, items / 8].
        excluded: sorted keys query * catalogue + row that must not be returned.
        catalogue: its size.

    Returns:
        Rows, best first, equals in order, padded with -1, [queries, k].

    """
    packed, given = _weighted_rows(neighbours, mask, masks)
    packed.sort(axis=1)
    keys = _sum_keys(packed, given, excluded, catalogue)
    keys.sort(axis=1)
    return _first(keys, k)[0]
