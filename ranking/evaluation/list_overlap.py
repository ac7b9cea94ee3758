"""Likeness of two lists of the same query: overlap of their first items, and rank-biased overlap."""

from __future__ import annotations

import numpy as np

from features.data.dataset import IntArray, LongArray
from ranking.evaluation.metrics import ValueArray

PERSISTENCE = 0.9
"""Default p: the first ten ranks have 86 % of the weight (Webber et al. 2010, eq. 21)."""


def _joint_depths(first: IntArray, second: IntArray) -> tuple[LongArray, LongArray]:
    """Return, of each item in both lists of a query, the query and the depth at which both lists have it."""
    width = max(first.shape[1], second.shape[1], 1)
    span = max(int(first.max(initial=0)), int(second.max(initial=0))) + 1

    def keyed(items: IntArray) -> tuple[LongArray, LongArray]:
        query, place = np.nonzero(items >= 0)
        keys, at = np.unique(query * span + items[query, place], return_index=True)
        return keys, place[at] + 1  # the first place of a repeated item

    keys, depth = keyed(first)
    others, other_depth = keyed(second)
    common, own, theirs = np.intersect1d(keys, others, assume_unique=True, return_indices=True)
    depths = np.minimum(np.maximum(depth[own], other_depth[theirs]), width)
    return common // span, depths.astype(np.int64)


def _lengths(items: IntArray) -> LongArray:
    """Return the length of each list, up to its last item, [queries]."""
    real = items >= 0
    last = items.shape[1] - np.argmax(real[:, ::-1], axis=1) if items.shape[1] else np.zeros(len(items))
    return np.where(real.any(axis=1), last, 0).astype(np.int64)


def overlap_at(first: IntArray, second: IntArray, k: int) -> ValueArray:
    """Return the items that two lists share within k, divided by the length of the longer one, [queries].

    Args:
        first: [queries, depth] catalogue rows, best first; -1 is padding.
        second: the other lists of the same queries.
        k: list length.

    Returns:
        0 to 1; two empty lists are alike.
    """
    first, second = first[:, :k], second[:, :k]
    query, _ = _joint_depths(first, second)
    shared = np.bincount(query, minlength=len(first)).astype(np.float64)
    longer = np.maximum((first >= 0).sum(axis=1), (second >= 0).sum(axis=1))
    return np.where(longer > 0, shared / np.maximum(longer, 1), 1.0)


def rank_biased_overlap(first: IntArray, second: IntArray, p: float = PERSISTENCE) -> ValueArray:
    """Return the extrapolated rank-biased overlap of two lists, [queries].

    Eq. 32 of Webber, Moffat and Zobel 2010, for lists of any two lengths: the expected agreement at the depth
    at which a reader stops who goes on to the next rank with probability p, if the agreement of what is known
    continues.

    Args:
        first: [queries, depth] catalogue rows, best first; -1 is padding.
        second: the other lists of the same queries.
        p: persistence, within (0, 1).

    Returns:
        0 (disjoint) to 1 (the same lists); two empty lists are alike.

    Raises:
        ValueError: a persistence outside (0, 1).
    """
    if not 0 < p < 1:
        raise ValueError(f"the persistence must lie within (0, 1): {p}")
    lengths = np.stack([_lengths(first), _lengths(second)])
    short, long = lengths.min(axis=0), lengths.max(axis=0)
    deepest = int(long.max(initial=0))
    query, depth = _joint_depths(first, second)
    at = np.zeros((len(first), deepest + 1))
    np.add.at(at, (query, depth), 1.0)
    shared = np.cumsum(at, axis=1)  # [queries, 1 + deepest] shared items within each depth
    rows = np.arange(len(first))
    at_short, at_long = shared[rows, short], shared[rows, long]
    depths = np.arange(1, deepest + 1)
    weights = np.power(p, depths)
    inside = depths <= long[:, None]
    beyond = inside & (depths > short[:, None])
    agreement = np.where(inside, shared[:, 1:] / depths, 0.0)
    per_short = at_short / np.maximum(short, 1)
    agreement += np.where(beyond, per_short[:, None] * (depths - short[:, None]) / depths, 0.0)
    tail = ((at_long - at_short) / np.maximum(long, 1) + per_short) * np.power(p, long)
    found = (1 - p) / p * (agreement @ weights) + tail
    # Rounded so that equal lists have exactly 1.
    return np.where(long > 0, np.clip(np.round(found, 12), 0.0, 1.0), 1.0)
