"""An order in which rows rise, against sorting everything again."""

from __future__ import annotations

import numpy as np
import pytest

from ranking.kernels.popularity_order import PopularityOrder
from ranking.retrieval.source_indexes import popularity_order


def made(scores: list[float], room: int = 0) -> PopularityOrder:
    popularity = np.array(scores, dtype=np.float32)
    return PopularityOrder(popularity_order(popularity), popularity, room)


def rise(order: PopularityOrder, *steps: tuple[int, float]) -> None:
    order.rise(np.array([row for row, _ in steps], np.int32), np.array([by for _, by in steps]))


def test_a_row_moves_up_to_behind_those_that_have_as_much() -> None:
    order = made([5.0, 4.0, 3.0, 2.0, 1.0])
    rise(order, (3, 2.0))
    assert order.shown(5, None).tolist() == [0, 1, 3, 2, 4]
    rise(order, (4, 0.5), (3, 2.0))
    assert order.shown(5, None).tolist() == [3, 0, 1, 2, 4]


def test_of_equal_rows_the_lower_one_comes_first() -> None:
    order = made([2.0, 0.0, 0.0, 0.0])
    rise(order, (3, 2.0), (1, 2.0))
    assert order.shown(4, None).tolist()[:3] == [0, 1, 3]


def test_views_taken_before_show_what_has_risen() -> None:
    order = made([3.0, 2.0, 1.0])
    shown = order.shown(3, None)
    rise(order, (2, 5.0))
    assert shown.tolist() == [2, 0, 1]


def test_hidden_rows_keep_their_place_and_added_ones_go_last() -> None:
    order = made([3.0, 2.0, 1.0], room=2)
    hidden = np.array([True, False, False, False])
    assert order.shown(4, hidden).tolist() == [1, 2, 3]
    rise(order, (3, 1.5), (0, 0.5))  # the hidden one rises unseen
    assert order.shown(4, hidden).tolist() == [1, 3, 2]
    assert order.shown(5, None).tolist() == [0, 1, 3, 2, 4]


@pytest.mark.parametrize("seed", range(5))
def test_it_is_as_if_everything_were_sorted_again(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size, room = 300, 50
    scores = np.zeros(size + room)
    scores[:size] = rng.integers(0, 6, size).astype(np.float32)  # many equal ones, and many without any
    base = scores[:size].astype(np.float32)
    order = PopularityOrder(popularity_order(base), base, room)
    hidden = rng.random(size + room) < 0.2
    for step in range(60):
        current = size + min(step, room)
        rows = rng.choice(current, size=rng.integers(1, 8), replace=False).astype(np.int32)
        by = rng.integers(1, 4, len(rows)).astype(np.float64)
        mask = hidden[:current] if step % 2 else None
        shown = order.shown(current, mask)
        order.rise(rows, by)
        scores[rows] += by
        expected = [r for r in np.lexsort((np.arange(current), -scores[:current])) if scores[r] > 0]
        visible = [r for r in expected if mask is None or not mask[r]]
        assert shown[: len(visible)].tolist() == visible
        assert sorted(shown.tolist()) == [r for r in range(current) if mask is None or not mask[r]]
