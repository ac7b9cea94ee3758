"""Corrections of p-values for several comparisons."""

from __future__ import annotations

import numpy as np
from scipy import stats

from ranking.evaluation.metrics import ValueArray


def holm(p_values: ValueArray) -> ValueArray:
    """Return p-values corrected by Holm's step-down method (1979), [tests].

    A corrected value below alpha rejects its hypothesis, with a chance of at most alpha that any true one is
    rejected, whatever the dependence of the tests.

    Args:
        p_values: [tests] in 0..1.
    """
    count = len(p_values)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * (count - np.arange(count)))
    corrected = np.empty(count)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected


def benjamini_hochberg(p_values: ValueArray) -> ValueArray:
    """Return p-values corrected by Benjamini and Hochberg's step-up method (1995), [tests].

    Of the hypotheses with a corrected value below q, a share of at most q is expected to be true, for
    independent or positively dependent tests: a weaker promise than `holm`, which loses fewer discoveries.

    Args:
        p_values: [tests] in 0..1.
    """
    return np.asarray(stats.false_discovery_control(p_values, method="bh"), dtype=np.float64)
