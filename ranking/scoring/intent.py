"""The intent of a session in the order of the candidates.

The ranking head has learnt from behaviour; it has never seen an intent in words. So the words decide, and
the head orders what fits them about equally well: what does not fit stays behind, whatever its score.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from features.data.dataset import FloatArray

TASTE: Final = 0.1
"""Largest change of a fit (a cosine, and a share of words) by the ranking head."""
POOL: Final = 100
"""Best fitting candidates over which the head's scores are standardised."""


def with_intent(scores: FloatArray, fit: FloatArray, known: bool) -> FloatArray:
    """Return the scores of candidates for a request with an intent.

    Args:
        scores: of the ranking, [candidates].
        fit: how well the candidates fit the words, [candidates].
        known: whether there is a history that the scores come from.

    Returns:
        The fit; with a history, moved by at most `TASTE` by the standardised score of each candidate,
        [candidates].
    """
    if not known or len(scores) == 0:
        return fit
    best = scores[np.argsort(-fit, kind="stable")[:POOL]]
    spread = float(best.std())
    if spread < 1e-9:
        return fit
    # Rounded as scores are: what BLAS rounds by batch size must not order equal items.
    liked = np.clip((scores - best.mean()) / spread, -1.0, 1.0)
    moved: FloatArray = np.round(fit + TASTE * liked, 4).astype(np.float32)
    return moved
