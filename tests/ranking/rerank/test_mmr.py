from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking.rerank.mmr import POOL, diversify, topk
from tests.synthetic import random_units

TWINS = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=np.float32)
SCORES = np.array([4.0, 3.0, 2.0, 0.0], dtype=np.float32)


def test_no_strength_keeps_the_order() -> None:
    assert diversify(SCORES, TWINS, 0.0, 4).tolist() == [0, 1, 2, 3]


def test_marginal_relevance_by_hand() -> None:
    # Relevance 1, .75, .5, 0. After item 0: .5 * .75 - .5 = -.125, .25 - 0 = .25, 0 - .3 = -.3.
    # After items 0 and 2: the twin has -.125, the last one 0 - .4.
    assert diversify(SCORES, TWINS, 0.5, 4).tolist() == [0, 2, 1, 3]
    assert diversify(SCORES, TWINS, 0.5, 2).tolist() == [0, 2]


def test_full_strength_only_avoids_similarity() -> None:
    assert diversify(SCORES, TWINS, 1.0, 3).tolist() == [0, 2, 3], "the twin comes last"


def test_equal_scores_are_all_relevant() -> None:
    assert diversify(np.ones(4, np.float32), TWINS, 0.5, 3).tolist() == [0, 2, 3]


def test_only_the_top_of_a_long_list_is_considered() -> None:
    count = 40
    scores = -np.arange(count, dtype=np.float32)
    units = np.tile(np.array([[1.0, 0.0]], np.float32), (count, 1))
    units[POOL * 2 :] = [0.0, 1.0]
    assert diversify(scores, units, 1.0, 2).tolist() == [0, 1], "what differs lies beyond the pool"


def test_short_lists() -> None:
    assert diversify(np.zeros(0, np.float32), np.zeros((0, 2), np.float32), 0.5, 3).tolist() == []
    assert diversify(np.ones(1, np.float32), TWINS[:1], 0.9, 3).tolist() == [0]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 500),
    count=st.integers(1, 30),
    k=st.integers(1, 12),
    strength=st.floats(0, 1, allow_nan=False),
)
def test_chosen_positions_are_distinct_and_start_with_the_best(
    seed: int, count: int, k: int, strength: float
) -> None:
    scores = np.sort(np.random.default_rng(seed).normal(size=count))[::-1].astype(np.float32)
    chosen = diversify(scores, random_units(count, 4, seed), strength, k).tolist()
    assert len(chosen) == min(k, count) == len(set(chosen))
    if strength < 1:
        assert chosen[0] == 0
    assert max(chosen) < max(POOL * k, k)


def mean_similarity(units: np.ndarray, chosen: np.ndarray) -> float:
    cosines = units[chosen] @ units[chosen].T
    return float(cosines[~np.eye(len(chosen), dtype=bool)].mean())


def test_more_strength_means_less_similarity_on_average() -> None:
    levels = []
    for strength in (0.0, 0.3, 0.6, 1.0):
        lists = []
        for seed in range(30):
            rng = np.random.default_rng(seed)
            centre = random_units(5, 8, seed)[rng.integers(0, 5, size=50)]
            units = centre + 0.2 * rng.normal(size=(50, 8)).astype(np.float32)
            units /= np.linalg.norm(units, axis=1, keepdims=True)
            scores = np.sort(rng.normal(size=50))[::-1].astype(np.float32)
            lists.append(mean_similarity(units, diversify(scores, units, strength, 8)))
        levels.append(float(np.mean(lists)))
    assert levels == sorted(levels, reverse=True)
    assert levels[0] - levels[-1] > 0.1


def test_a_strength_that_changes_nothing_is_not_an_accident() -> None:
    distinct = np.eye(4, dtype=np.float32)
    for strength in (0.0, 0.5, 0.99):
        assert diversify(SCORES, distinct, strength, 4).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("k", [1, 2, 3])
def test_the_choice_of_fewer_is_a_prefix_where_the_pool_is_the_same(k: int) -> None:
    longer = diversify(SCORES, TWINS, 0.5, 4)
    assert diversify(SCORES, TWINS, 0.5, k).tolist() == longer[:k].tolist()


def test_the_top_k_are_those_of_sorting_everything() -> None:
    rng = np.random.default_rng(0)
    for k in (1, 3, 10, 40, 60):
        rows = np.concatenate([rng.permutation(1000)[:40], [-1] * 5]).astype(np.int32)
        scores = np.where(rows < 0, -np.inf, rng.integers(0, 8, size=45)).astype(np.float32)  # many are equal
        assert topk(rows, scores, k).tolist() == np.lexsort((rows, -scores))[:40][:k].tolist()
    assert topk(rows[40:], scores[40:], 3).tolist() == []
