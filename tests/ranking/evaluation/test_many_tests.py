from __future__ import annotations

import numpy as np

from ranking.evaluation.many_tests import holm


def test_holm_by_hand() -> None:
    # Sorted: 0.01 * 4 = 0.04, 0.02 * 3 = 0.06, 0.03 * 2 = 0.06, 0.5 * 1.
    np.testing.assert_allclose(holm(np.array([0.03, 0.01, 0.5, 0.02])), [0.06, 0.04, 0.5, 0.06])
    # A later step is never smaller than an earlier one: 0.02 * 2 = 0.04, then 0.025 * 1 is raised to it.
    np.testing.assert_allclose(holm(np.array([0.02, 0.025])), [0.04, 0.04])


def test_holm_stays_a_probability_and_leaves_one_test_alone() -> None:
    np.testing.assert_array_equal(holm(np.array([0.9, 0.8])), [1.0, 1.0])
    np.testing.assert_array_equal(holm(np.array([0.2])), [0.2])
    assert len(holm(np.zeros(0))) == 0
