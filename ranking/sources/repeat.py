"""Repeat purchases: candidates from the history itself."""

from __future__ import annotations

import numpy as np

from ranking.kernels.topk import NeighbourWeights, best_sums
from ranking.sources.contract import CandidateSource, Proposal, SourceRequest

HALF_LIFE_EVENTS = 50.0
"""Half-life of an event's weight, in later events."""


class Repeat(CandidateSource):
    """The history's own items, by recency and frequency."""

    name = "repeat"
    quota = "repeat"

    def propose(self, request: SourceRequest, quota: int) -> Proposal:
        """Add up the recency weights of each item's events."""
        batch, limits = request.batch.without_interest(), request.limits
        events = len(batch.items)
        itself, ones = batch.items[:, None], np.ones((events, 1), dtype=np.float32)
        positions = np.arange(events, dtype=np.int32)
        weights = NeighbourWeights(positions, batch.offsets, events, HALF_LIFE_EVENTS, itself, ones)
        return Proposal(best_sums(weights, quota, *limits.bits, limits.excluded, request.items))
