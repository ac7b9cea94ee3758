"""Reciprocal rank fusion of the proposals of several sources."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from features.candidates.features import Candidates
from features.data.dataset import FloatArray, IntArray, LongArray
from features.kernels.compiled import compiled
from ranking.kernels.topk import LOW_BITS, MASK, NO_KEY, pack_ranks

FUSION = 60.0
"""Constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009)."""
_FINE = float(1 << 33)
"""Steps to which fusion scores are rounded for sorting; sums of up to 15 sources stay below a quarter."""

Shorts = npt.NDArray[np.int16]
Doubles = npt.NDArray[np.float64]


@compiled()
def _fuse(
    packed: LongArray, bits: Shorts, points: Doubles
) -> tuple[IntArray, Shorts, Doubles, LongArray, int]:
    """Add up the points of rows that are packed with their positions and sorted.

    Returns:
        Per query, by ascending row: rows, source masks, sums; sort keys of descending sum with the position
        among these, all [queries, positions]; the largest number of rows of a query.

    """
    rows = np.full(packed.shape, -1, dtype=np.int32)
    masks = np.zeros(packed.shape, dtype=np.int16)
    sums = np.zeros(packed.shape, dtype=np.float64)
    keys = np.full(packed.shape, NO_KEY, dtype=np.int64)
    width = 0
    for query in range(len(packed)):
        count = -1
        for place in range(packed.shape[1]):
            if packed[query, place] == NO_KEY:
                break
            row, at = packed[query, place] >> LOW_BITS, packed[query, place] & MASK
            if count < 0 or rows[query, count] != row:
                count += 1
                rows[query, count] = row
            masks[query, count] |= bits[at]
            sums[query, count] += points[at]
        for place in range(count + 1):
            keys[query, place] = (-np.int64(np.rint(sums[query, place] * _FINE)) << LOW_BITS) | place
        width = max(width, count + 1)
    return rows, masks, sums, keys, width


@compiled()
def _sorted_candidates(
    keys: LongArray, rows: IntArray, masks: Shorts, sums: Doubles, width: int
) -> tuple[IntArray, Shorts, FloatArray]:
    """Return the rows, masks and sums of `_fuse` in the order of its sorted keys, [queries, width] each."""
    shape = (len(keys), width)
    merged = np.full(shape, -1, dtype=np.int32)
    found = np.zeros(shape, dtype=np.int16)
    fused = np.zeros(shape, dtype=np.float32)
    for query in range(len(keys)):
        for place in range(width):
            if keys[query, place] == NO_KEY:
                break
            at = keys[query, place] & MASK
            merged[query, place] = rows[query, at]
            found[query, place] = masks[query, at]
            fused[query, place] = sums[query, at]
    return merged, found, fused


def merge(proposals: Sequence[tuple[int, IntArray]], queries: int) -> Candidates:
    """Return the union of the sources' proposals, best fusion score first, ties by row.

    Args:
        proposals: each source's bit in the source masks, and its rows [queries, quota], best first, padded
            with -1.
        queries: number of queries.

    """
    blocks = [(bit, rows) for bit, rows in proposals if rows.shape[1] > 0]
    if not blocks:
        empty = np.zeros((queries, 0))
        return Candidates(empty.astype(np.int32), empty.astype(np.int16), empty.astype(np.float32))
    quotas = [rows.shape[1] for _, rows in blocks]
    bits = np.repeat(np.array([1 << bit for bit, _ in blocks], dtype=np.int16), quotas)
    points = 1.0 / (FUSION + 1.0 + np.concatenate([np.arange(quota) for quota in quotas]))
    packed = pack_ranks(np.concatenate([rows for _, rows in blocks], axis=1))
    packed.sort(axis=1)
    rows, masks, sums, keys, width = _fuse(packed, bits, points)
    keys.sort(axis=1)
    return Candidates(*_sorted_candidates(keys, rows, masks, sums, width))
