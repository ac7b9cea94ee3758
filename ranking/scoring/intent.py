"""The text query of a session in the scores of candidates.

The ranking head is trained on interactions, not on queries. So text relevance decides, and the head reorders
candidates of about equal relevance.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from features.data.dataset import FloatArray

TASTE: Final = 0.1
"""Largest change of a candidate's relevance by the ranking head."""
POOL: Final = 100
"""Most relevant candidates over which the head's scores are standardised."""


def with_intent(scores: FloatArray, fit: FloatArray, known: bool) -> FloatArray:
    """Return the scores of candidates for a request with a text query.

    Args:
        scores: of the ranking head, [candidates].
        fit: relevance of the candidates to the query, [candidates].
        known: whether the scores come from a history.

    Returns:
        The relevance; with a history, changed by at most `TASTE` by the standardised scores, [candidates].
    """
    if not known or len(scores) == 0:
        return fit
    best = scores[np.argsort(-fit, kind="stable")[:POOL]]
    spread = float(best.std())
    if spread < 1e-9:
        return fit
    # Rounded as scores are: BLAS rounds differently by batch size, which must not order equal items.
    liked = np.clip((scores - best.mean()) / spread, -1.0, 1.0)
    moved: FloatArray = np.round(fit + TASTE * liked, 4).astype(np.float32)
    return moved
