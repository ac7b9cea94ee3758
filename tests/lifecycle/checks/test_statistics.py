from __future__ import annotations

import math

import numpy as np
import pytest

from lifecycle.checks.statistics import categories, drift, stability, total_variation


def test_the_population_stability_index_by_hand() -> None:
    before, now = np.array([50.0, 50.0]), np.array([3.0, 1.0])
    by_hand = (0.75 - 0.5) * math.log(0.75 / 0.5) + (0.25 - 0.5) * math.log(0.25 / 0.5)
    assert stability(before, now) == pytest.approx(by_hand) == pytest.approx(0.274653)


def test_an_empty_bin_is_finite() -> None:
    # Its share counts as 0.0001: (0.5 - 0.0001) ln(5000), and (0.5 - 1) ln(0.5) for the other.
    by_hand = 0.4999 * math.log(5000) + 0.5 * math.log(2)
    assert stability(np.array([100.0, 0.0]), np.array([1.0, 1.0])) == pytest.approx(by_hand)


def test_equal_samples_do_not_drift() -> None:
    values = np.arange(100.0)
    distance = drift(values, values)
    assert (distance.psi, distance.ks, distance.p) == (0.0, 0.0, 1.0)


def test_a_scaled_sample_drifts() -> None:
    before = np.arange(1.0, 101.0)
    distance = drift(before, before * 100)
    # All but the smallest nine tenths' values lie in the last decile now: 100 > 90.1.
    assert distance.ks == pytest.approx(0.99)
    assert distance.psi == pytest.approx(0.9 * math.log(10) + 9 * 0.0999 * math.log(1000), rel=1e-3)
    assert distance.p < 1e-30


def test_the_kolmogorov_smirnov_statistic_by_hand() -> None:
    # Distribution functions differ most between 2 and 3: all of the first sample, none of the second.
    assert drift(np.array([1.0, 2.0]), np.array([3.0, 4.0])).ks == 1.0
    assert drift(np.array([1.0, 3.0]), np.array([2.0, 4.0])).ks == 0.5


def test_a_constant_that_changes_is_seen() -> None:
    assert drift(np.ones(50), np.full(50, 2.0)).psi > 1
    assert drift(np.ones(50), np.ones(70)).psi == 0.0


def test_total_variation_is_the_least_share_that_changed() -> None:
    assert total_variation({"view": 80, "purchase": 20}, {"view": 9, "purchase": 1}) == pytest.approx(0.1)
    assert total_variation({"view": 1}, {"click": 1}) == 1.0
    assert total_variation({"view": 5}, {"view": 50}) == 0.0


def test_categories_by_hand() -> None:
    by_hand = 2 * 0.25 * math.log(3)
    assert categories({"a": 1, "b": 3}, {"a": 30, "b": 10}) == pytest.approx(2 * by_hand)
