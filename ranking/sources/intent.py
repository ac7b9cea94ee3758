"""Candidates that match the text query of a session."""

from __future__ import annotations

import numpy as np

from ranking.sources.contract import CandidateSource, Proposal, SourceRequest


class Intent(CandidateSource):
    """Items most relevant to the session's text query, by words and embedding."""

    name = "intent"
    quota = "user_vector"

    def propose(self, request: SourceRequest, quota: int) -> Proposal | None:
        """Search the texts with each text query; None where the batch has none."""
        if request.intents is None:
            return None
        rows = np.full((len(request), quota), -1, dtype=np.int32)
        for query, intent in enumerate(request.intents):
            if intent is not None:
                excluded = request.limits.excluded_rows(query, request.items)
                found, _ = request.texts.best(intent, quota, excluded, request.limits.allowed[query])
                rows[query, : len(found)] = found
        return Proposal(rows)
