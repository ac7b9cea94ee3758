from __future__ import annotations

import numpy as np

from ranking.evaluation.many_tests import benjamini_hochberg, holm


def test_holm_by_hand() -> None:
    # Sorted: 0.01 * 4 = 0.04, 0.02 * 3 = 0.06, 0.03 * 2 = 0.06, 0.5 * 1.
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.5, 0.02])), [0.06, 0.04, 0.5, 0.06])
    # A later step is never smaller than an earlier one: 0.02 * 2 = 0.04, then 0.025 * 1 is raised to it.
    np.testing.assert_allclose(holm(np.array([0.02, 0.025])), [0.04, 0.04])


def test_holm_stays_a_probability_and_leaves_one_test_alone() -> None:
    np.testing.assert_array_equal(holm(np.array([0.9, 0.8])), [1.0, 1.0])
    np.testing.assert_array_equal(holm(np.array([0.2])), [0.2])
    assert len(holm(np.zeros(0))) == 0


def test_benjamini_hochberg_by_hand() -> None:
    # Sorted: 0.01 * 4 / 1 = 0.04, 0.02 * 4 / 2 = 0.04, 0.03 * 4 / 3 = 0.04, 0.5 * 4 / 4.
    np.testing.assert_allclose(benjamini_hochberg(np.array([0.03, 0.01, 0.5, 0.02])), [0.04, 0.04, 0.5, 0.04])
    # A smaller one is never larger than the next: 0.02 * 2 = 0.04 is lowered to 0.025 * 2 / 2.
    np.testing.assert_allclose(benjamini_hochberg(np.array([0.02, 0.025])), [0.025, 0.025])


def test_benjamini_hochberg_lies_between_no_correction_and_holm() -> None:
    p_values = np.random.default_rng(0).random(50) ** 3
    corrected = benjamini_hochberg(p_values)
    assert (corrected <= holm(p_values)).all()
    assert (corrected >= p_values).all()
    assert len(benjamini_hochberg(np.zeros(0))) == 0
