"""Diversity by maximal marginal relevance."""

from __future__ import annotations

import numpy as np

from features.data.dataset import FloatArray, IntArray, LongArray
from features.kernels.compiled import compiled

POOL = 5
"""Candidates considered per item of the list."""


def topk(rows: IntArray, scores: FloatArray, k: int) -> LongArray:
    """Return the positions of the k best candidates, ties by row, [at most k].

    Args:
        rows: candidates, padded with -1, [candidates].
        scores: their relevance, [candidates].
        k: positions to return.

    """
    return _topk(rows, scores, k)


@compiled()
def _topk(rows: IntArray, scores: FloatArray, k: int) -> LongArray:
    """Insertion into a sorted top k: most candidates are worse than all of it."""
    best = np.empty(max(min(k, len(rows)), 0), dtype=np.int64)
    count = 0
    for place in range(len(rows) if len(best) else 0):
        if rows[place] < 0:
            continue
        at = count
        while at > 0:
            before = best[at - 1]
            worse = scores[before] < scores[place]
            if not worse and (scores[before] != scores[place] or rows[before] <= rows[place]):
                break
            at -= 1
        if at == len(best):
            continue
        count = min(count + 1, len(best))
        for n in range(count - 1, at, -1):
            best[n] = best[n - 1]
        best[at] = place
    return best[:count]


def diversify(scores: FloatArray, units: FloatArray, strength: float, k: int) -> LongArray:
    """Return k items chosen by maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    Args:
        scores: relevance, best first, [candidates].
        units: unit vectors whose cosine is similarity, [candidates, dim].
        strength: 0 keeps the order, 1 only avoids similarity.
        k: items to choose.

    Returns:
        Positions of the chosen candidates, in order.

    """
    pool = min(len(scores), max(POOL * k, k))
    if pool == 0:
        return np.zeros(0, dtype=np.int64)
    relevance = scores[:pool].astype(np.float64)
    span = float(relevance[0] - relevance[-1])
    relevance = (relevance - relevance[-1]) / span if span > 0 else np.ones(pool)
    similarity = np.zeros(pool)
    free = np.ones(pool, dtype=bool)
    chosen: list[int] = []
    for _ in range(min(k, pool)):
        value = np.where(free, (1.0 - strength) * relevance - strength * similarity, -np.inf)
        pick = int(value.argmax())
        chosen.append(pick)
        free[pick] = False
        similarity = np.maximum(similarity, units[:pool] @ units[pick])
    return np.array(chosen, dtype=np.int64)
