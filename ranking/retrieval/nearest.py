"""The nearest rows to query vectors within the limits of a batch."""

from __future__ import annotations

import numpy as np

from features.data.dataset import BoolArray, FloatArray, IntArray
from ranking.retrieval.limits import Limits, first_allowed, write_allowed
from ranking.retrieval.searcher import QueryGroup, VectorSearcher


def nearest(
    index: VectorSearcher, vectors: FloatArray, quota: int, limits: Limits, items: int
) -> tuple[IntArray, FloatArray]:
    """Search an index with the vectors of a batch; a zero vector finds nothing.

    Queries that share a filter are searched as one batch; on a GPU all queries are.

    Args:
        index: over vectors of the whole catalogue.
        vectors: [queries, dim].
        quota: rows per query.
        limits: rows that may be proposed.
        items: catalogue size.

    Returns:
        Rows [queries, quota], best first, padded with -1; each query's best score, 0 without, [queries].

    """
    queries = len(vectors)
    rows = np.full((queries, quota), -1, dtype=np.int32)
    best = np.zeros(queries, dtype=np.float32)
    nonzero: BoolArray = np.asarray(vectors.any(axis=1))
    if quota == 0 or not nonzero.any():
        return rows, best
    counts, groups = limits.excluded_counts(items), []
    for mask, members in limits.groups:
        some = members[nonzero[members]]
        if len(some) == 0:
            continue
        # Excluded rows are fetched and dropped, so fetch as many more.
        most = int(counts[some].max())
        extra = (
            1 << most.bit_length() if most else 0
        )  # in powers of two, so that groups have few distinct sizes
        groups.append(QueryGroup(some, quota + extra, mask, limits.expression(int(some[0]))))
    for group, (found, scores) in zip(groups, index.search_groups(vectors, groups), strict=True):
        best[group.members] = np.where(found[:, 0] >= 0, scores[:, 0], 0.0)
        write_allowed(found, group.members, limits.excluded, items, rows)
    return rows, best


def most_popular(by_popularity: IntArray, quota: int, limits: Limits, items: int) -> IntArray:
    """Return the first permitted rows of the popularity order per query, [queries, quota] padded with -1.

    Args:
        by_popularity: rows, best first.
        quota: rows per query.
        limits: rows that may be proposed.
        items: catalogue size.

    """
    counts = limits.excluded_counts(items)
    popular = np.full((len(limits.allowed), quota), -1, dtype=np.int32)
    for mask, members in limits.groups:
        order = first_allowed(by_popularity, mask, quota + int(counts[members].max()))
        write_allowed(order[None], members, limits.excluded, items, popular)
    return popular
