"""Candidates from the history itself."""

from __future__ import annotations

import numpy as np

from ranking.kernels.topk import NeighbourWeights, best_sums
from ranking.sources.contract import CandidateSource, Proposal, SourceRequest

HALVED = 50.0
"""Events after which an event counts half."""


class Repeat(CandidateSource):
    """The history's own items, the latest and most frequent first."""

    name = "repeat"
    quota = "repeat"

    def propose(self, request: SourceRequest, quota: int) -> Proposal:
        """Add up the events of each item by recency."""
        batch, limits = request.batch.without_interest(), request.limits
        events = len(batch.items)
        itself, ones = batch.items[:, None], np.ones((events, 1), dtype=np.float32)
        places = np.arange(events, dtype=np.int32)
        weights = NeighbourWeights(places, batch.offsets, events, HALVED, itself, ones)
        return Proposal(best_sums(weights, quota, *limits.bits, limits.excluded, request.items))
