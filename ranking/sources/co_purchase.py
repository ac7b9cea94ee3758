"""Candidates that users with similar histories bought, in any order."""

from __future__ import annotations

from ranking.retrieval.nearest import nearest
from ranking.sources.contract import CandidateSource, Proposal, SourceRequest


class CoPurchase(CandidateSource):
    """Largest inner products of item factors with the user's factors (implicit ALS)."""

    name = "co_purchase"
    quota = "co_purchase"
    personal = True

    def propose(self, request: SourceRequest, quota: int) -> Proposal | None:
        """Search the index over factors; None for a model without factors."""
        index = request.indexes.factors
        if index is None:
            return None
        return Proposal(*nearest(index, request.users.factors, quota, request.limits, request.items))
