from __future__ import annotations

import math

import numpy as np
import pytest

from explorer.rules.changes import change
from explorer.rules.costs import costs, lists_of, values
from features.data.dataset import Events, IntArray
from features.data.splits import Queries
from ranking.evaluation.metrics import popularity_lift
from ranking.types import Recommendation, RecommendedItem

EVENTS = Events(
    user=np.array([0, 0, 1, 1, 2], dtype=np.int32),
    item=np.array([0, 1, 2, 3, 0], dtype=np.int32),
    kind=np.zeros(5, dtype=np.int8),
    time=np.arange(5, dtype=np.int64),
    offsets=np.array([0, 2, 4, 5], dtype=np.int64),
)
QUERIES = Queries(  # user 0 after one event, user 1 after one, user 2 without a history
    user=np.array([0, 1, 2], dtype=np.int32),
    end=np.array([1, 3, 4], dtype=np.int64),
    time=np.array([1, 3, 4], dtype=np.int64),
    target_offsets=np.array([0, 1, 2, 3], dtype=np.int64),
    targets=np.array([1, 3, 0], dtype=np.int32),
    target_kinds=np.zeros(3, dtype=np.int32),
)
COUNTS = np.array([6, 0, 2, 4], dtype=np.int64)


def item(row: int) -> RecommendedItem:
    return RecommendedItem(row, 0.0, 0.0, 0.0, "popular")


def lists(*rows: list[int]) -> IntArray:
    return lists_of([Recommendation(tuple(item(row) for row in line), "none") for line in rows])


def test_measures_of_every_query() -> None:
    items = lists([0, 1], [3, 2], [])
    assert items.shape == (3, 10)
    found = values(items, QUERIES, EVENTS, COUNTS)
    assert found["recall@10"].tolist() == [1, 1, 0]
    assert found["ndcg@10"] == pytest.approx([1 / math.log2(3), 1, 0])
    # Histories are item 0 (6 events) and item 2 (2): 4 on average; lists have 3 and 3 on average.
    assert found["popularity_lift@10"] == pytest.approx([0.75, 0.75, 0])
    assert found["new_items@10"].tolist() == [0.5, 0, 0]


def test_popularity_lift_is_that_of_the_report() -> None:
    items, queries = lists([0, 1], [3, 2]), QUERIES.select(np.array([0, 1]))
    own = values(items, queries, EVENTS, COUNTS)["popularity_lift@10"].mean()
    assert own == pytest.approx(popularity_lift(items, EVENTS, queries, COUNTS, 10))


def test_differences_are_of_pairs_and_coverage_of_all() -> None:
    before, after = lists([0, 1], [3, 2], [0]), lists([1, 0], [2, 0], [0])
    found = {cost.name: cost for cost in costs(before, after, QUERIES, EVENTS, COUNTS)}
    recall = found["recall@10"]
    assert (recall.before, recall.after) == pytest.approx((1, 2 / 3))
    assert recall.difference == pytest.approx(-1 / 3)
    assert recall.low is not None
    assert recall.high is not None
    assert -1 <= recall.low <= -1 / 3 <= recall.high <= 0
    assert not recall.sure, "one query of three"
    assert found["ndcg@10"].difference == pytest.approx((1 - 1 / math.log2(3) - 1 + 0) / 3)
    coverage = found["coverage@10"]
    assert (coverage.before, coverage.after, coverage.difference) == (1.0, 0.75, None)


def test_equal_lists_cost_nothing_for_sure() -> None:
    same = lists([0, 1], [3, 2], [0])
    for cost in costs(same, same, QUERIES, EVENTS, COUNTS):
        assert cost.before == cost.after
        assert cost.difference in (None, 0.0)
        assert not cost.sure


def test_places_before_and_after() -> None:
    found = change([item(r) for r in (5, 6, 7, 8)], [item(r) for r in (6, 5, 9, 8)])
    assert [(p.item.row, p.before, p.moved) for p in found.after] == [
        (6, 2, 1), (5, 1, -1), (9, None, 0), (8, 4, 0),
    ]  # fmt: skip
    assert found.gone == ((7, 3),)
    assert found.differs == 3
    assert change([item(1), item(2)], [item(1)]).differs == 1
