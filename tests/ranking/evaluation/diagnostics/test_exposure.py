from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ranking.evaluation.diagnostics.exposure import (
    NEVER,
    YOUNG_SECONDS,
    Exposure,
    exposure_gini,
    first_times,
    gini,
)
from tests.ranking.evaluation.test_metrics import ask, rows
from tests.synthetic import EventRow, make_dataset


def test_gini_by_hand() -> None:
    assert gini(np.array([2, 2, 2])) == pytest.approx(0)
    assert gini(np.array([0, 5, 0, 0])) == pytest.approx(3 / 4)
    # mean absolute difference over twice the mean: pairs of 1, 2, 3 differ by 1, 1, 2
    assert gini(np.array([3, 1, 2])) == pytest.approx((2 * (1 + 1 + 2) / 9) / (2 * 2))
    assert gini(np.zeros(4, dtype=np.int64)) is None
    # padding is not shown, nor is anything behind k
    assert exposure_gini(rows([0, 1, 2], [0, -1, 3]), 4, 2) == gini(np.array([2, 1, 0, 0]))


def test_exposure_by_hand() -> None:
    # `a` is the most sold; `b` is in the history; `d` is young; `e` has no event before the window
    day = 86_400
    rows_: list[EventRow] = [
        ("u", "b", "purchase", 1000),
        ("u", "c", "purchase", 1000 + 90 * day),
        ("v", "a", "purchase", 1000),
        ("v", "a", "purchase", 1001),
        ("v", "c", "purchase", 1002),
        ("v", "d", "purchase", 1000 + 70 * day),
        ("v", "e", "purchase", 1000 + 95 * day),
    ]
    dataset = make_dataset(rows_, ["a", "b", "c", "d", "e"])
    known = np.array([1, 6])
    first = first_times(dataset.events, known, 5)
    assert first.tolist() == [1000, 1000, 1002, 1000 + 70 * day, NEVER]
    queries = replace(
        ask([0, 1, 2, 3], [4]),
        user=np.array([0, 1], dtype=np.int32),
        end=known,
        time=np.full(2, 1000 + 90 * day),
    )
    exposure = Exposure.of(dataset, queries, np.array([2, 1, 1, 1, 0]), known)
    exposure = replace(exposure, obvious=np.array([0], dtype=np.int32))
    lists = rows([0, 1, 2, 3], [0, 4, -1, -1])
    summary = exposure.summary(lists, 4)
    # hits of u: a is obvious, b in the history, c and d are neither; of v: e
    assert summary["serendipity@4"] == pytest.approx(3 / 8)
    assert summary["new_items@4"] == pytest.approx(1 / 6)
    assert summary["young_items@4"] == pytest.approx(1 / 6)
    assert summary["gini@4"] == gini(np.array([2, 1, 1, 1, 1]))
    assert 90 * day - 70 * day < YOUNG_SECONDS < 90 * day
    assert replace(exposure, has_time=False).summary(lists, 4)["young_items@4"] is None


def test_the_obvious_items_are_the_ten_with_most_training_events() -> None:
    dataset = make_dataset([("u", "i0", "purchase", 1)], [f"i{n}" for n in range(15)])
    queries = ask([3])
    exposure = Exposure.of(dataset, queries, np.arange(15), np.array([0]))
    assert exposure.obvious.tolist() == [14, 13, 12, 11, 10, 9, 8, 7, 6, 5]
    few = Exposure.of(dataset, queries, np.array([0, 2] + [0] * 13), np.array([0]))
    assert few.obvious.tolist() == [1]  # an item without events is not popular


def test_empty_lists_give_nulls() -> None:
    dataset = make_dataset([("u", "a", "purchase", 1)], ["a", "b"])
    exposure = Exposure.of(dataset, ask([1]), np.array([1, 0]), np.array([1]))
    summary = exposure.summary(np.full((1, 10), -1, dtype=np.int32))
    assert summary == {"gini@10": None, "serendipity@10": 0.0, "new_items@10": None, "young_items@10": None}
    none = Exposure.of(dataset, ask(), np.array([1, 0]), np.array([1]))
    assert none.summary(np.zeros((0, 10), dtype=np.int32))["serendipity@10"] is None
