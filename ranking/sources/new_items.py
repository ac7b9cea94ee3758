"""Candidates among cold items."""

from __future__ import annotations

import numpy as np

from features.data.dataset import FloatArray, IntArray
from ranking.retrieval.nearest import nearest
from ranking.sources.contract import CandidateSource, Proposal, SourceRequest


class NewItems(CandidateSource):
    """The nearest items among those without training events, until they have collected enough of them.

    However near it is, a new item ranks behind thousands of established ones; without a quota of its own it
    would get no exposure, and stay cold. Half of the quota is for items added since the bundle was made,
    ahead of the bundle's own items without events.
    """

    name = "new_items"
    quota = "new_items"
    personal = True

    def propose(self, request: SourceRequest, quota: int) -> Proposal:
        """Search the index over new items, and the one over added items where there are any."""
        vectors, limits, indexes = _query_vectors(request), request.limits, request.indexes
        rows, _ = nearest(indexes.new_items, vectors, quota, limits, request.items)
        if indexes.added is None:
            return Proposal(rows)
        added, _ = nearest(indexes.added, vectors, -(-quota // 2), limits, request.items)
        return Proposal(_with_first(added, rows))


def _query_vectors(request: SourceRequest) -> FloatArray:
    """Return the user vectors in the space of `source_indexes.new_vectors`, [queries, dim]."""
    if request.arrays.affinity_units.shape[1]:
        return request.users.affinity
    return request.users.factors if request.arrays.factor_vectors.shape[1] else request.users.tower


def _with_first(first: IntArray, rows: IntArray) -> IntArray:
    """Return `first` [queries, any] followed by `rows` without repeats, cut to [queries, quota]."""
    repeated = (rows[:, :, None] == first[:, None, :]).any(axis=2) | (rows < 0)
    both = np.concatenate([first, np.where(repeated, -1, rows)], axis=1)
    order = np.argsort(both < 0, axis=1, kind="stable")[:, : rows.shape[1]]
    return np.take_along_axis(both, order, axis=1)
