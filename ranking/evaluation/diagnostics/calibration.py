"""Calibration: whether items with a predicted probability of 5 % are chosen five times in a hundred.

Measured on the listed items, whose probabilities a storefront sees, against what the user chose in the
window. A window longer or shorter than those the ranking head was trained on moves all probabilities by a
common factor; `observed / predicted` shows it.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from features.data.dataset import BoolArray, FloatArray
from ranking.evaluation.metrics import ValueArray

BINS: Final = 10
"""Bins of the reliability table, of equal numbers of items."""
DRAWS: Final = 200
"""Draws of outcomes for the error of a perfectly calibrated model, and most resamples of the intervals."""
KINDS: Final = ("click", "purchase")
"""Names of the two probabilities: of any choice, and of a purchase."""


def equal_mass_bins(predicted: ValueArray, bins: int) -> tuple[np.ndarray, int]:
    """Return the bin of each prediction, [pairs], and the number of bins.

    Bins hold equal numbers of predictions; equal predictions share one, so that there may be fewer.
    """
    edges = np.unique(np.quantile(predicted, np.arange(1, bins) / bins, method="inverted_cdf"))
    codes = np.searchsorted(edges, predicted, side="left")
    _, codes = np.unique(codes, return_inverse=True)
    return codes, int(codes.max(initial=-1)) + 1


Sums = npt.NDArray[Any]


def _error(count: Sums, predicted: Sums, observed: Sums) -> ValueArray:
    """Return the expected calibration error from sums by bin, each [..., bins]."""
    found: ValueArray = np.abs(predicted - observed).sum(axis=-1) / np.maximum(count.sum(axis=-1), 1)
    return found


def reliability(
    predicted: FloatArray, observed: BoolArray, owners: np.ndarray, resamples: int, seed: int, level: float
) -> dict[str, Any] | None:
    """Return the reliability table and the expected calibration error (ECE) of predictions.

    ECE is the mean over bins of |mean prediction - observed rate|, weighted by size (Naeini et al., AAAI
    2015), with bins of equal mass (Nguyen and O'Connor 2015). It is above 0 for a perfectly calibrated model,
    too, because observed rates vary: `ece_if_calibrated` is its mean over outcomes drawn from the predictions
    (Bröcker and Smith 2007), `ece_if_calibrated_high` what it exceeds in 1 - `level` of the draws.

    Args:
        predicted: [pairs] probabilities.
        observed: [pairs] outcomes.
        owners: [pairs] query of each, the unit of the bootstrap.
        resamples: bootstrap samples.
        seed: of resamples and draws.
        level: of the intervals.

    Returns:
        None without any pair.
    """
    if len(predicted) == 0:
        return None
    rng = np.random.default_rng(seed)
    chances = predicted.astype(np.float64)
    codes, bins = equal_mass_bins(chances, BINS)
    _, queries = np.unique(owners, return_inverse=True)
    n_queries = int(queries.max()) + 1
    cells = queries * bins + codes
    sums = np.stack(
        [
            np.bincount(cells, weights=weights, minlength=n_queries * bins).reshape(n_queries, bins)
            for weights in (np.ones(len(chances)), chances, observed.astype(np.float64))
        ]
    )  # [count | predicted | observed, queries, bins]
    count, total, hits = sums.sum(axis=1)  # [bins] each
    sampled = np.stack(
        [
            np.tensordot(
                np.bincount(rng.integers(n_queries, size=n_queries), minlength=n_queries), sums, (0, 1)
            )
            for _ in range(min(resamples, DRAWS))
        ]
    )  # [resamples, 3, bins]
    tails = [(1 - level) / 2, (1 + level) / 2]
    rates = sampled[:, 2] / np.maximum(sampled[:, 0], 1)
    rate_low, rate_high = np.quantile(rates, tails, axis=0)
    low, high = np.quantile(_error(sampled[:, 0], sampled[:, 1], sampled[:, 2]), tails)
    drawn = np.array(
        [
            _error(
                count, total, np.bincount(codes, weights=rng.random(len(chances)) < chances, minlength=bins)
            )
            for _ in range(DRAWS)
        ]
    )
    smallest = np.full(bins, np.inf)
    np.minimum.at(smallest, codes, chances)
    largest = np.zeros(bins)
    np.maximum.at(largest, codes, chances)
    return {
        "pairs": len(chances),
        "mean_predicted": float(chances.mean()),
        "mean_observed": float(observed.mean()),
        "ece": float(_error(count, total, hits)),
        "low": float(low),
        "high": float(high),
        "ece_if_calibrated": float(drawn.mean()),
        "ece_if_calibrated_high": float(np.quantile(drawn, level)),
        "bins": [
            {
                "from": float(smallest[b]),
                "to": float(largest[b]),
                "pairs": int(count[b]),
                "predicted": float(total[b] / count[b]),
                "observed": float(hits[b] / count[b]),
                "low": float(rate_low[b]),
                "high": float(rate_high[b]),
            }
            for b in range(bins)
        ],
    }


def calibration_summary(
    probabilities: FloatArray | None,
    outcomes: BoolArray,
    resamples: int,
    seed: int,
    level: float,
) -> dict[str, Any] | None:
    """Return the reliability of both probabilities of listed items; None for a system without any.

    Args:
        probabilities: [queries, k, 2] P(click), P(purchase) of the first k items of lists; NaN at padding.
        outcomes: [queries, k, 2] whether the user chose the item in the window, and by a purchase.
        resamples: bootstrap samples.
        seed: of resamples and draws.
        level: of the intervals.
    """
    if probabilities is None:
        return None
    summary: dict[str, Any] = {"k": probabilities.shape[1]}
    query, place = np.nonzero(~np.isnan(probabilities[:, :, 0]))
    for number, kind in enumerate(KINDS):
        predicted, observed = probabilities[query, place, number], outcomes[query, place, number]
        summary[kind] = reliability(predicted, observed, query, resamples, seed, level)
    return summary if summary["click"] is not None else None
