"""Distances between two samples: population stability index, Kolmogorov-Smirnov, total variation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy import stats

Numbers = npt.NDArray[np.float64]

_BINS: Final = 10
_FEW: Final = 2
_SMALLEST: Final = 1e-4
"""Share of an empty bin, so that the index is finite."""


@dataclass(frozen=True)
class Drift:
    """How far a sample is from another one."""

    psi: float
    """Population stability index: below 0.1 stable, above 0.25 another population (Siddiqi 2006)."""
    ks: float
    """Two-sample Kolmogorov-Smirnov statistic: largest distance of the distribution functions."""
    p: float
    """Its p-value; with many values it is tiny for differences of no importance."""

    def __str__(self) -> str:
        """Return the figures in words."""
        return f"PSI {self.psi:.3f}, KS {self.ks:.3f} (p={self.p:.1g})"


def stability(before: Numbers, now: Numbers) -> float:
    """Return the population stability index of shares, which may be unnormalised counts, [bins].

    sum((q - p) * ln(q / p)) over the bins, the symmetrised Kullback-Leibler divergence.
    """
    p, q = (np.maximum(counts / max(counts.sum(), 1), _SMALLEST) for counts in (before, now))
    return float(((q - p) * np.log(q / p)).sum())


def drift(before: Numbers, now: Numbers) -> Drift:
    """Compare two samples of numbers, each without missing values and not empty.

    The bins of the index are the deciles of the earlier sample, open at both ends; equal deciles are one, and
    a sample of at most two values has them as bins of their own.

    Args:
        before: [n] values.
        now: [m] values.
    """
    edges = np.unique(np.quantile(before, np.linspace(0, 1, _BINS + 1)[1:-1]))
    if len(edges) <= _FEW:
        edges = np.unique(np.concatenate([edges, np.nextafter(edges, np.inf)]))

    def counts(values: Numbers) -> Numbers:
        places = np.searchsorted(edges, values, side="right")
        return np.bincount(places, minlength=len(edges) + 1).astype(np.float64)

    tested = stats.ks_2samp(before, now, method="asymp")
    return Drift(stability(counts(before), counts(now)), float(tested.statistic), float(tested.pvalue))


def total_variation(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    """Return half the sum of the differences of shares: the least share that would have to change."""
    totals = [max(sum(counts.values()), 1e-300) for counts in (before, now)]
    names = {*before, *now}
    return sum(abs(before.get(n, 0) / totals[0] - now.get(n, 0) / totals[1]) for n in names) / 2


def categories(before: Mapping[str, float], now: Mapping[str, float]) -> float:
    """Return the population stability index of two counts of categories."""
    names = sorted({*before, *now})
    first, second = (np.array([c.get(n, 0.0) for n in names]) for c in (before, now))
    return stability(first, second)
