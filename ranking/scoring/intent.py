"""What a shopper says to look for, in the order of the candidates.

The ranking head has learnt from what people did; it has never seen a wish in words. So the words decide, and
the head orders what fits them about equally well: what does not fit stays behind, however liked it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from features.data.dataset import FloatArray, IntArray
from ranking.retrieval.sources import Limits
from ranking.words.text_match import Asked, TextMatch

TASTE: Final = 0.1
"""Largest change of a fit (a cosine, and a share of words) by the ranking head."""
POOL: Final = 100
"""Best fitting candidates over which the head's scores are standardised."""


def fitting(texts: TextMatch, intents: Sequence[Asked | None], limits: Limits, quota: int) -> IntArray:
    """Return the items that fit what each query has said best, [queries, quota] padded with -1."""
    rows = np.full((len(intents), quota), -1, dtype=np.int32)
    for query, asked in enumerate(intents):
        if asked is not None and quota:
            excluded = limits.banned_rows(query, len(texts.vectors))
            found, _ = texts.best(asked, quota, excluded, limits.allowed[query])
            rows[query, : len(found)] = found
    return rows


def with_intent(scores: FloatArray, fit: FloatArray, known: bool) -> FloatArray:
    """Return the scores of candidates for somebody who has said what they look for.

    Args:
        scores: of the ranking, [candidates].
        fit: how well the candidates fit the words, [candidates].
        known: whether there is a history that the scores come from.

    Returns:
        The fit; with a history, moved by at most `TASTE` by how much the ranking likes each candidate,
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
