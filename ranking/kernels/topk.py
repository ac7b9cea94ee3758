"""Top-k rows by value: both are packed into one integer key, which numpy sorts with SIMD instructions.

The row is in the 31 bits below the value, so that ties are broken by row and no second array is permuted:
sorting some hundred keys takes two microseconds. Compiled loops build them, because numpy would take a dozen
calls, and because a loop can prefetch vectors.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from features.data.dataset import FloatArray, IntArray, LongArray
from features.kernels.compiled import compiled
from features.kernels.prefetch import LINE, fetch

Bytes = npt.NDArray[np.uint8]

PREFETCH_VECTORS = 8
"""Vectors to prefetch ahead of multiplication."""
PREFETCH_EVENTS = 4
"""Events whose neighbours are prefetched."""
NO_KEY = np.int64(np.iinfo(np.int64).max)
"""Key of no row; it goes last."""
LOW_BITS = 31
"""Bits below the value, or below the row where a position is packed with it."""
MASK = np.int64((1 << LOW_BITS) - 1)


@compiled()
def _key(bits: IntArray, row: int) -> np.int64:
    """Return the sort key of a row and a float32, by its bits [1]; larger values have smaller keys."""
    key: np.int64 = (np.int64(~(bits[0] ^ ((bits[0] >> 31) & 0x7FFFFFFF))) << LOW_BITS) | np.int64(row)
    return key


@compiled("contract", "reassoc")
def _product_keys(queries: FloatArray, vectors: FloatArray, rows: LongArray) -> LongArray:
    keys = np.full(rows.shape, NO_KEY, dtype=np.int64)
    value = np.empty(1, dtype=np.float32)
    bits = value.view(np.int32)
    last = rows.shape[1] - 1
    for query in range(len(rows)):
        query_vector = queries[query]
        for place in range(rows.shape[1]):
            ahead = rows[query, min(place + PREFETCH_VECTORS, last)]
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
def pack_ranks(rows: IntArray) -> LongArray:
    """Pack rows, padded with -1, with their positions, [queries, any]; `NO_KEY` at padding."""
    packed = np.full(rows.shape, NO_KEY, dtype=np.int64)
    for query in range(len(rows)):
        for place in range(rows.shape[1]):
            if rows[query, place] >= 0:
                packed[query, place] = (np.int64(rows[query, place]) << LOW_BITS) | place
    return packed


class NeighbourWeights(NamedTuple):
    """Events of histories, and the weighted neighbours of each event's item."""

    items: IntArray
    """Items of the events, oldest first, [total events]."""
    offsets: LongArray
    """Start of each query's events, [queries + 1]."""
    recent: int
    """Newest events of each history that count."""
    scale: float
    """Events after which a weight has halved."""
    ids: IntArray
    """Neighbours of each item, padded with -1, [items, any]."""
    weights: FloatArray
    """Their weights, [items, any]."""


@compiled()
def _weighted_rows(
    neighbours: NeighbourWeights, mask: LongArray, masks: Bytes
) -> tuple[LongArray, FloatArray]:
    """Return neighbours packed with their positions, and their weights, [queries, positions] each."""
    items, offsets, recent, scale, ids, weights = neighbours
    wide, events = ids.shape[1], 0
    for query in range(len(mask)):
        events = max(events, min(recent, offsets[query + 1] - offsets[query]))
    packed = np.full((len(mask), events * wide), NO_KEY, dtype=np.int64)
    given = np.empty(packed.shape, dtype=np.float32)
    for query in range(len(mask)):
        bits, stop = mask[query], offsets[query + 1]
        first = max(offsets[query], stop - recent)
        place = 0
        for event in range(first, stop):
            if event + PREFETCH_EVENTS < stop:
                for k in range(0, wide, LINE):
                    fetch(ids, items[event + PREFETCH_EVENTS], k)
                    fetch(weights, items[event + PREFETCH_EVENTS], k)
            item, weight = items[event], np.float32(1.0 / (1.0 + (stop - 1 - event) / scale))
            for k in range(wide):
                row = ids[item, k]
                if row >= 0 and (bits < 0 or masks[bits, row >> 3] >> (row & 7) & 1):
                    packed[query, place] = (np.int64(row) << LOW_BITS) | place
                    given[query, place] = weights[item, k] * weight
                place += 1
    return packed, given


@compiled()
def _sum_keys(packed: LongArray, given: FloatArray, excluded: LongArray, catalogue: int) -> LongArray:
    """Return sort keys of rows and their summed weights, from sorted `packed` rows, [queries, positions]."""
    keys = np.full(packed.shape, NO_KEY, dtype=np.int64)
    value = np.empty(1, dtype=np.float32)
    bits = value.view(np.int32)
    at = 0  # exclusions are sorted like the rows
    for query in range(len(packed)):
        place, count = 0, 0
        while place < packed.shape[1] and packed[query, place] != NO_KEY:
            row, total = packed[query, place] >> LOW_BITS, 0.0
            while place < packed.shape[1] and packed[query, place] >> LOW_BITS == row:
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
    """Return the first k rows of sorted keys and their values, padded with -1 and -inf, [queries, k] each."""
    rows = np.full((len(keys), k), -1, dtype=np.int32)
    values = np.full((len(keys), k), -np.inf, dtype=np.float32)
    bits = values.view(np.int32)
    for query in range(len(keys)):
        for place in range(min(k, keys.shape[1])):
            key = keys[query, place]
            if key == NO_KEY:
                break
            rows[query, place] = key & MASK
            value = ~np.int32(key >> LOW_BITS)
            bits[query, place] = value ^ ((value >> 31) & 0x7FFFFFFF)
    return rows, values


def best_products(
    queries: FloatArray, vectors: FloatArray, rows: LongArray, k: int
) -> tuple[IntArray, FloatArray]:
    """Return the rows whose vectors have the largest inner products with a query, and these products.

    Args:
        queries: [queries, dim].
        vectors: of the items, [items, dim].
        rows: candidates, unique, padded with -1, [queries, any].
        k: rows per query.

    Returns:
        Rows padded with -1 and products padded with -inf, each [queries, k].

    """
    keys = _product_keys(np.ascontiguousarray(queries), vectors, rows)
    keys.sort(axis=1)
    return _first(keys, k)


def best_sums(
    neighbours: NeighbourWeights, k: int, mask: LongArray, masks: Bytes, excluded: LongArray, catalogue: int
) -> IntArray:
    """Return the rows with the largest summed weights as neighbours of the newest events.

    Args:
        neighbours: the events and their neighbours with weights.
        k: rows per query.
        mask: index of each query's mask, -1 for none, [queries].
        masks: packed masks of the rows that may be returned, lowest bit first, [any, items / 8].
        excluded: sorted keys query * catalogue + row that must not be returned.
        catalogue: its size.

    Returns:
        Rows, best first, ties by row, padded with -1, [queries, k].

    """
    packed, given = _weighted_rows(neighbours, mask, masks)
    packed.sort(axis=1)
    keys = _sum_keys(packed, given, excluded, catalogue)
    keys.sort(axis=1)
    return _first(keys, k)[0]
