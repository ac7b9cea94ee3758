"""Candidates whose item vectors are nearest to the user vector."""

from __future__ import annotations

from ranking.retrieval.nearest import nearest
from ranking.sources.contract import CandidateSource, Proposal, SourceRequest


class UserVector(CandidateSource):
    """Largest inner products of item vectors with the user vector of the towers."""

    name = "user_vector"
    quota = "user_vector"
    personal = True

    def propose(self, request: SourceRequest, quota: int) -> Proposal:
        """Search the index over item vectors."""
        found = nearest(request.indexes.items, request.users.tower, quota, request.limits, request.items)
        return Proposal(*found)
