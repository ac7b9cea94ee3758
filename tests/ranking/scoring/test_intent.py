"""Scores of candidates for somebody who has said what they look for, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from ranking.scoring.intent import POOL, TASTE, with_intent

SCORES = np.array([1.0, 3.0, 5.0, 3.0], dtype=np.float32)  # mean 3, deviation sqrt(2)
FIT = np.array([0.4, 0.21, 0.2, 0.0], dtype=np.float32)


def test_without_a_history_the_fit_is_the_score() -> None:
    assert with_intent(SCORES, FIT, known=False).tolist() == pytest.approx([0.4, 0.21, 0.2, 0.0])


def test_with_one_the_ranking_moves_it_by_taste_at_most() -> None:
    # Deviations of -sqrt(2), 0, sqrt(2) and 0 are cut to -1, 0, 1 and 0.
    expected = [0.4 - TASTE, 0.21, 0.2 + TASTE, 0.0]
    assert with_intent(SCORES, FIT, known=True).tolist() == pytest.approx(expected, abs=1e-4)


def test_the_ranking_orders_what_fits_alike_and_never_what_does_not() -> None:
    same = np.full(4, 0.3, dtype=np.float32)
    assert np.argsort(-with_intent(SCORES, same, True), kind="stable").tolist() == [2, 1, 3, 0]
    assert np.argsort(-with_intent(same, FIT, True), kind="stable").tolist() == [0, 1, 2, 3]
    far = np.array([0.5, 0.5 - 2.1 * TASTE], dtype=np.float32)
    assert np.argsort(-with_intent(np.array([-9.0, 9.0], np.float32), far, True)).tolist() == [0, 1]
    assert with_intent(same[:0], same[:0], True).shape == (0,)


def test_it_is_the_best_fitting_that_scores_are_measured_against() -> None:
    """What the ranking likes among all that does not fit says nothing of what does."""
    fit = np.concatenate([np.full(POOL, 0.5), np.zeros(300)]).astype(np.float32)
    scores = np.concatenate([np.linspace(-3, -2, POOL), np.full(300, 9.0)]).astype(np.float32)
    moved = with_intent(scores, fit, True)
    assert moved[0] == pytest.approx(0.5 - TASTE, abs=1e-4)
    assert moved[POOL - 1] == pytest.approx(0.5 + TASTE, abs=1e-4)
    assert moved[POOL:].max() <= TASTE + 1e-4
