from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.data.histories import (
    INTEREST,
    HistoryBatch,
    KeyedSums,
    batch_histories,
    contains,
    histories_of,
    seen_keys,
    stable_order,
)
from features.data.splits import Queries
from tests.synthetic import make_dataset


@pytest.fixture
def batch() -> HistoryBatch:
    """Three histories: two events, none, three events."""
    return batch_histories(
        [np.array([5, 6], np.int32), np.zeros(0, np.int32), np.array([7, 8, 9], np.int32)],
        [np.array([0, 1], np.int8), np.zeros(0, np.int8), np.array([1, 1, 0], np.int8)],
        [np.array([10, 20]), np.zeros(0, np.int64), np.array([30, 40, 50])],
        [100, 200, 300],
    )


def test_owners_and_ages_by_hand(batch: HistoryBatch) -> None:
    assert batch.offsets.tolist() == [0, 2, 2, 5]
    assert batch.owners().tolist() == [0, 0, 2, 2, 2]
    assert batch.age().tolist() == [1, 0, 2, 1, 0]


def test_newest_keeps_the_last_events_of_each(batch: HistoryBatch) -> None:
    newest = batch.newest(2)
    assert newest.items.tolist() == [5, 6, 8, 9]
    assert newest.kinds.tolist() == [0, 1, 1, 0]
    assert newest.times.tolist() == [10, 20, 40, 50]
    assert newest.offsets.tolist() == [0, 2, 2, 4]
    assert newest.now.tolist() == [100, 200, 300]
    assert batch.newest(0).items.tolist() == []
    assert batch.newest(99).items.tolist() == batch.items.tolist()


def test_events_of_interest_are_events_and_no_repeats() -> None:
    batch = batch_histories(
        [np.array([5, 6, 5], np.int32), np.zeros(0, np.int32), np.array([7], np.int32)],
        [np.array([0, INTEREST, INTEREST], np.int8), np.zeros(0, np.int8), np.array([INTEREST], np.int8)],
        [np.array([10, 20, 30]), np.zeros(0, np.int64), np.array([40])],
        [100, 200, 300],
        weakest=1,
    )
    assert batch.kinds.tolist() == [0, 1, 1, 1]
    assert batch.kinds_or_interest().tolist() == [0, INTEREST, INTEREST, INTEREST]
    own = batch.without_interest()
    assert (own.items.tolist(), own.kinds.tolist(), own.offsets.tolist()) == ([5], [0], [0, 1, 1, 1])
    assert (own.times.tolist(), own.now.tolist(), own.interest) == ([10], [100, 200, 300], None)
    assert batch.newest(1).kinds_or_interest().tolist() == [INTEREST, INTEREST]
    assert batch.select(1, 3).kinds_or_interest().tolist() == [INTEREST]


def test_histories_without_them_are_their_own(batch: HistoryBatch) -> None:
    assert batch.without_interest() is batch
    assert batch.kinds_or_interest() is batch.kinds


def test_select_cuts_queries_out(batch: HistoryBatch) -> None:
    part = batch.select(1, 3)
    assert (part.offsets.tolist(), part.items.tolist(), part.now.tolist()) == (
        [0, 0, 3],
        [7, 8, 9],
        [200, 300],
    )
    assert part.kinds.tolist() == [1, 1, 0]
    assert part.times.tolist() == [30, 40, 50]


def test_no_histories_at_all() -> None:
    empty = batch_histories([], [], [], [])
    assert len(empty) == 0
    assert empty.owners().tolist() == []
    assert empty.newest(3).items.tolist() == []


def test_histories_of_queries_end_where_the_query_does() -> None:
    rows = [("u", f"i{n}", "purchase", n) for n in range(3)] + [("v", f"i{n}", "purchase", n) for n in (3, 4)]
    data = make_dataset(rows, [f"i{n}" for n in range(5)])
    nothing = np.zeros(0, np.int32)
    queries = Queries(
        np.array([1, 0, 1], np.int32),
        np.array([4, 2, 3]),
        np.array([7, 8, 9]),
        np.zeros(4, np.int64),
        nothing,
        nothing,
    )
    found = histories_of(data.events, queries)
    assert found.items.tolist() == [3, 0, 1]
    assert found.offsets.tolist() == [0, 1, 3, 3]
    assert found.now.tolist() == [7, 8, 9]


@pytest.mark.parametrize("size", [1, 2, 100])
def test_items_of_histories_are_found_once_in_blocks_of_any_size(size: int) -> None:
    rows = [("u", f"i{n % 3}", "purchase", n) for n in range(6)] + [("v", "i4", "purchase", 3)]
    data = make_dataset(rows, [f"i{n}" for n in range(5)])
    nothing = np.zeros(0, np.int32)
    queries = Queries(
        np.array([1, 0, 0, 1], np.int32),
        np.array([7, 5, 0, 6]),
        np.zeros(4, np.int64),
        np.zeros(5, np.int64),
        nothing,
        nothing,
    )
    assert seen_keys(data.events, queries, 5, size).tolist() == [4, 5, 6, 7]
    assert seen_keys(data.events, queries.select(np.zeros(0, np.int64)), 5).tolist() == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(-5, 5)), max_size=20))
def test_keyed_sums_are_what_a_loop_adds_up(pairs: list[tuple[int, int]]) -> None:
    keys = np.array([k for k, _ in pairs], dtype=np.int64)
    values = np.array([v for _, v in pairs], dtype=np.float64)
    sums, counts, largest = KeyedSums.of(keys, values), KeyedSums.of(keys), KeyedSums.largest(keys, values)
    asked = np.arange(-1, 11).reshape(3, 4)
    for found, fold in (
        (sums, sum),
        (counts, len),
        (largest, lambda v: max(v, default=0)),
    ):
        expected = [float(fold([v for key, v in pairs if key == k])) for k in range(-1, 11)]
        assert found.get(asked).ravel().tolist() == pytest.approx(expected)
        assert found.get(asked).shape == (3, 4)


def test_missing_keys_get_the_default() -> None:
    sums = KeyedSums.of(np.array([3, 3]))
    assert sums.get(np.array([3, 4]), default=-7).tolist() == [2.0, -7.0]
    assert KeyedSums.of(np.zeros(0, np.int64)).get(np.array([3]), default=-7).tolist() == [-7.0]
    assert KeyedSums.largest(np.zeros(0, np.int64), np.zeros(0)).get(np.array([3])).tolist() == [0.0]


def test_largest_keeps_whole_seconds_exact() -> None:
    times = np.array([1_700_000_001, 1_700_000_003])
    assert KeyedSums.largest(np.array([0, 0]), times).get(np.array([0])).tolist() == [1_700_000_003]


def test_contains_by_hand() -> None:
    assert contains(np.array([2, 5, 9]), np.array([[1, 2], [9, 10]])).tolist() == [
        [False, True],
        [True, False],
    ]
    assert contains(np.zeros(0, np.int64), np.array([1])).tolist() == [False]


@pytest.mark.parametrize("shape", [(0,), (1,), (500,), (7, 300)])
def test_the_stable_order_is_that_of_a_stable_sort(shape: tuple[int, ...]) -> None:
    keys = np.random.default_rng(0).integers(-5, 40, size=shape).astype(np.int32)
    assert np.array_equal(stable_order(keys), np.argsort(keys, axis=-1, kind="stable"))
