"""What a shopper says to look for, in the order of the candidates.

The ranking head has learnt from what people did; it has never seen a wish in words. So the words take part
after it: alone where nothing else is known, else together with its score.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from features.dataset import FloatArray

WEIGHT: Final = 2.0
"""Weight of the words against all that is known of the shopper: a favourite that does not fit them (three
deviations up by its score, half of one down by its text) stays behind what fits them well."""


def with_intent(scores: FloatArray, cosines: FloatArray, known: bool) -> FloatArray:
    """Return the scores of candidates for somebody who has said what they look for.

    Args:
        scores: of the ranking, [candidates].
        cosines: of the candidates' texts and the words, [candidates].
        known: whether there is a history that the scores come from.

    Returns:
        The cosines without a history; else both, standardised over the candidates and weighted, [candidates].
    """
    # Rounded as scores are: what BLAS rounds by batch size must not order equal items.
    combined = _standardised(scores) + WEIGHT * _standardised(cosines) if known else cosines
    rounded: FloatArray = np.round(combined, 4)
    return rounded


def _standardised(values: FloatArray) -> FloatArray:
    spread = float(values.std()) if len(values) else 0.0
    if spread < 1e-9:
        return np.zeros(len(values), dtype=np.float32)
    standardised: FloatArray = ((values - values.mean()) / spread).astype(np.float32)
    return standardised
