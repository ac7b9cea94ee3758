"""What the benchmark of Milvus compares, on lists and rows made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.milvus.latency import in_turns, recall
from benchmarks.milvus.lists import compared, quantiles
from ranking.types import Recommendation, RecommendedItem


def made(*rows: int) -> Recommendation:
    return Recommendation(tuple(RecommendedItem(row, 1.0, 0.5, 0.5, "popular") for row in rows), "none")


def test_lists_are_equal_in_order_and_share_items_in_any() -> None:
    one = [made(1, 2, 3, 4), made(5, 6)]
    assert compared(one, one) == {"equal_lists": 1.0, "shared_items": 1.0}
    assert compared(one, [made(2, 1, 3, 9), made(5, 6)]) == {"equal_lists": 0.5, "shared_items": 5 / 6}


def test_recall_is_the_share_of_the_exact_rows() -> None:
    exact = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=np.int32)
    assert recall(np.array([[4, 3, 9, -1], [5, 6, 7, 8]], dtype=np.int32), exact) == 6 / 8


def test_engines_take_turns_on_the_same_queries() -> None:
    queries = np.arange(12, dtype=np.float32).reshape(6, 2)
    calls: list[tuple[str, list[float]]] = []

    def search(name: str) -> object:
        return lambda some: calls.append((name, some[:, 0].tolist()))

    taken = in_turns({"a": search("a"), "b": search("b")}, queries, batch=2, repeats=2)  # type: ignore[dict-item]
    assert {name: len(values) for name, values in taken.items()} == {"a": 2, "b": 2}
    assert [name for name, _ in calls] == ["a", "b"] * 4
    assert [rows for name, rows in calls if name == "a"] == [rows for name, rows in calls if name == "b"]
    assert calls[-1][1] == [0.0, 2.0]  # the queries begin anew


def test_quantiles() -> None:
    found = quantiles(list(range(101)))
    assert found["p50"] == 50
    assert found["p99"] == pytest.approx(99)
