"""Bootstrap intervals and paired tests over queries, vectorised and seeded.

Queries are the sampling unit: each is one user once. Intervals are percentile bootstrap (Efron 1979). A
difference between two systems is tested on the same queries, twice: the paired t test (exact enough for
thousands of queries, and able to give very small p-values) and a sign-flip permutation test, which assumes
nothing about the shape of the differences but cannot go below 1 / (permutations + 1).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from ranking.evaluation.metrics import ValueArray

POWER = 0.8
"""Probability with which a minimum detectable difference is found significant at the 5 % level."""
BLOCK_CELLS = 4_000_000
"""Resampling weights held at once (about 32 MB)."""


@dataclass(frozen=True)
class PairedDifference:
    """System minus baseline for several metrics, each field [metrics]."""

    difference: ValueArray
    low: ValueArray
    high: ValueArray
    p_value: ValueArray
    """Two-sided paired t test."""
    p_permutation: ValueArray
    """Two-sided sign-flip permutation test."""
    detectable: ValueArray
    """Smallest true difference that the t test finds in `POWER` of test sets of this size."""


def _blocks(total: int, width: int) -> Iterator[int]:
    """Return block sizes that add up to `total` resamples of `width` queries and fit in memory."""
    size = max(BLOCK_CELLS // max(width, 1), 1)
    for start in range(0, total, size):
        yield min(size, total - start)


def bootstrap_intervals(
    values: ValueArray, resamples: int = 1000, seed: int = 0, level: float = 0.95
) -> tuple[ValueArray, ValueArray]:
    """Return percentile intervals of the mean of each column.

    All columns share the same resamples, so that intervals of several systems can be compared.

    Args:
        values: [queries, metrics].
        resamples: bootstrap samples.
        seed: of the resampling.
        level: share of resampled means inside the interval.

    Returns:
        Lower and upper ends, each [metrics]; NaN where there are no queries.

    Raises:
        ValueError: fewer than one resample, or a level outside (0, 1).

    """
    if resamples < 1 or not 0 < level < 1:
        raise ValueError(f"resamples must be 1 or more and level within (0, 1): {resamples}, {level}")
    queries, metrics = values.shape
    if queries == 0:
        empty = np.full(metrics, np.nan)
        return empty, empty.copy()
    rng = np.random.default_rng(seed)
    sampled = []
    for size in _blocks(resamples, queries):
        drawn = rng.integers(queries, size=(size, queries)) + np.arange(size)[:, None] * queries
        times = np.bincount(drawn.ravel(), minlength=size * queries).reshape(size, queries)
        sampled.append(times.astype(np.float64) @ values / queries)  # [block, metrics]
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(sampled), [tail, 1 - tail], axis=0)
    return low, high


def _sign_flip(differences: ValueArray, permutations: int, seed: int) -> ValueArray:
    """Return the share of random sign patterns whose mean is at least as far from 0, [metrics]."""
    moving = differences[(differences != 0).any(axis=1)]  # zeros stay zero whatever their sign
    rng = np.random.default_rng(seed)
    observed = np.abs(moving.sum(axis=0))
    slack = 1e-9 * np.abs(moving).sum(axis=0)  # sums equal up to rounding count as equal
    reached = np.zeros(differences.shape[1], dtype=np.int64)
    for size in _blocks(permutations, len(moving)):
        bits = rng.integers(0, 256, size=(size, -(-len(moving) // 8)), dtype=np.uint8)
        plus = np.unpackbits(bits, axis=1, count=len(moving)).astype(np.float64)  # [block, queries]
        sums = 2 * (plus @ moving) - moving.sum(axis=0)
        reached += (np.abs(sums) >= observed - slack).sum(axis=0)
    return (reached + 1) / (permutations + 1)


def paired_test(
    system: ValueArray,
    baseline: ValueArray,
    resamples: int = 1000,
    permutations: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> PairedDifference:
    """Return the paired difference of two systems on the same queries.

    Args:
        system: [queries, metrics].
        baseline: [queries, metrics], the same queries in the same order.
        resamples: bootstrap samples for the interval of the difference.
        permutations: random sign patterns.
        seed: of resampling and sign patterns.
        level: of the interval.

    Raises:
        ValueError: shapes differ.

    """
    if system.shape != baseline.shape:
        raise ValueError(f"paired values differ in shape: {system.shape} and {baseline.shape}")
    differences = system - baseline
    queries, metrics = differences.shape
    low, high = bootstrap_intervals(differences, resamples, seed, level)
    difference = differences.mean(axis=0) if queries else np.full(metrics, np.nan)
    p_value = np.ones(metrics)
    # A constant difference has no variance: p = 1 if it is 0, else p = 0.
    constant = np.ptp(differences, axis=0) < 1e-12 if queries > 1 else np.ones(metrics, dtype=np.bool_)
    if queries > 1:
        p_value[constant & (np.abs(difference) > 1e-12)] = 0.0
    if not constant.all():
        p_value[~constant] = stats.ttest_1samp(differences[:, ~constant], 0.0, axis=0).pvalue
    p_permutation = _sign_flip(differences, permutations, seed)
    return PairedDifference(difference, low, high, p_value, p_permutation, minimum_detectable(differences))


def minimum_detectable(
    differences: ValueArray, significance: float = 0.05, power: float = POWER
) -> ValueArray:
    """Return the minimum detectable effect of a paired comparison, [metrics]; NaN for fewer than two queries.

    The true mean difference that a two-sided test finds significant with probability `power`:
    (z(1 - significance / 2) + z(power)) * deviation / sqrt(queries) (Cohen 1988, normal approximation; Sakai
    2018). A smaller difference than that, found or missed, says little.

    Args:
        differences: [queries, metrics] paired differences.
        significance: level of the test.
        power: probability of finding the effect.

    """
    if len(differences) < 2:
        return np.full(differences.shape[1], np.nan)
    factor = stats.norm.ppf(1 - significance / 2) + stats.norm.ppf(power)
    found: ValueArray = factor * differences.std(axis=0, ddof=1) / np.sqrt(len(differences))
    return found
