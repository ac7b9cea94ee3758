"""Scores of candidates for somebody who has said what they look for, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ranking.intent import WEIGHT, with_intent

SCORES = np.array([1.0, 3.0, 5.0, 3.0], dtype=np.float32)  # mean 3, deviation sqrt(2)
COSINES = np.array([0.4, 0.2, 0.2, 0.0], dtype=np.float32)  # mean 0.2, deviation sqrt(0.02)


def test_without_a_history_the_words_are_the_score() -> None:
    assert with_intent(SCORES, COSINES, known=False).tolist() == pytest.approx([0.4, 0.2, 0.2, 0.0])


def test_with_one_both_count_in_deviations() -> None:
    root = 2**0.5
    expected = [-root + WEIGHT * root, 0.0, root, -WEIGHT * root]
    assert with_intent(SCORES, COSINES, known=True).tolist() == pytest.approx(expected, abs=1e-4)


def test_where_all_fit_alike_the_ranking_decides_and_the_other_way_round() -> None:
    same = np.full(4, 0.3, dtype=np.float32)
    assert np.argsort(-with_intent(SCORES, same, True), kind="stable").tolist() == [2, 1, 3, 0]
    assert np.argsort(-with_intent(same, COSINES, True), kind="stable").tolist() == [0, 1, 2, 3]
    assert with_intent(same[:0], same[:0], True).shape == (0,)
