"""Candidates by recent popularity."""

from __future__ import annotations

from ranking.retrieval.nearest import most_popular
from ranking.sources.contract import CandidateSource, Proposal, SourceRequest


class Popular(CandidateSource):
    """Recent popularity: event counts with a half-life of 14 days."""

    name = "popular"
    quota = "popular"

    def propose(self, request: SourceRequest, quota: int) -> Proposal:
        """Return the first permitted rows of the popularity order."""
        return Proposal(most_popular(request.indexes.by_popularity, quota, request.limits, request.items))
