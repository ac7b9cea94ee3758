"""Features of candidates by hand, on four items that are easy to tell apart."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from features.candidates.features import (
    PROFILE,
    Candidates,
    FeatureLayout,
    ItemArrays,
    UserVectors,
    affinity_profiles,
    candidate_features,
    recency_weights,
)
from features.data.dataset import FloatArray
from features.data.histories import HistoryBatch, batch_histories
from features.data.statistics import DAY, Neighbours, Statistics
from ranking.sources import SOURCES
from ranking.types import History
from tests.features.slow_features import spread
from tests.synthetic import EMPTY, batch_at, make_dataset, make_recommender

NOW = 1_000 * DAY
AFFINITY = np.array([[1, 0], [0, 1], [0.6, 0.8], [0, 0]], np.float32)
UNITS = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]], dtype=np.float32)
TOWER = np.array([1.5, 2.0], dtype=np.float32)
FACTORS = np.array([1.0, -1.0], dtype=np.float32)
TEXTS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.8, 0.6]], dtype=np.float32)


def near(rows: list[list[tuple[int, float]]]) -> Neighbours:
    width = max(len(row) for row in rows)
    padded = [row + [(-1, 0.0)] * (width - len(row)) for row in rows]
    return Neighbours(
        np.array([[i for i, _ in row] for row in padded], np.int32),
        np.array([[w for _, w in row] for row in padded], np.float32),
    )


@pytest.fixture
def arrays() -> ItemArrays:
    """Four items with statistics that are easy to tell apart."""
    follow = near([[(1, 0.5), (2, 0.25)], [(2, 0.75)], [], [(1, 0.125)]])
    together = near([[(1, 0.5)], [(0, 0.5), (2, 0.3)], [(1, 0.3)], []])
    statistics = Statistics(
        now=np.array([NOW]),
        count=np.array([10, 5, 1, 0], np.float32),
        recent=np.array([4, 2, 0.5, 0], np.float32),
        repeat_rate=np.array([0.4, 0.3, 0.2, 0.1], np.float32),
        gap_days=np.array([10, 20, 30, 40], np.float32),
        log_price=np.array([1.0, 2.0, 3.0, 4.0], np.float32),
        attributes=np.array([[0, 1], [1, -1], [0, 1], [-1, 0]], np.int32),
        follow_ids=follow.ids,
        follow_weights=follow.weights,
        together_ids=together.ids,
        together_weights=together.weights,
        # Item 0: ten events, one of them 40 days ago, one in the last week; 1: five a year ago; 2: yesterday.
        demand_keys=np.array([0, 460, 495, 501 + 135, 2 * 501 + 499], np.int64),
        demand_totals=np.array([0, 8, 9, 10, 15, 16], np.int64),
        demand_calendar=np.array([NOW // DAY - 500, 501], np.int64),
        demand_first=np.array([0, 135, 499, 501], np.int64),
    )
    return ItemArrays(
        statistics,
        2 * UNITS,
        UNITS,
        TEXTS,
        AFFINITY,
        near([[(2, 0.9)], [(3, 0.6)], [(0, 0.9)], [(1, 0.6)]]),
        np.array([0.1, 0.2, 0.3, 0.4], np.float32),
        3 * UNITS,
    )


def history(*events: tuple[int, int, float]) -> History:
    """History of (item, kind, days before now)."""
    return History(
        np.array([i for i, _, _ in events], np.int32),
        np.array([k for _, k, _ in events], np.int8),
        np.array([int(NOW - d * DAY) for _, _, d in events], np.int64),
    )


def batch_of(*histories: History, now: int = NOW) -> HistoryBatch:
    return batch_at(now, histories)


def layout_of(attributes: int) -> FeatureLayout:
    return FeatureLayout(SOURCES.names, attributes)


def features_of(
    arrays: ItemArrays, batch: HistoryBatch, rows: list[list[int]], sources: int = 1
) -> dict[str, np.ndarray]:
    """Feature name -> values [queries, candidates], for the same user vectors whatever the history."""
    block = np.array(rows, np.int32)
    candidates = Candidates(block, np.full(block.shape, sources, np.int16), np.ones(block.shape, np.float32))
    queries, columns = len(batch), arrays.factor_vectors.shape[1]
    users = UserVectors(
        np.resize(TOWER, (queries, arrays.item_vectors.shape[1])),
        np.resize(FACTORS, (queries, columns)),
        affinity_profiles(batch, arrays.affinity_units),
    )
    best = np.tile(np.array([5.0, 7.0], np.float32), (queries, 1))
    layout = layout_of(arrays.statistics.attributes.shape[1])
    found = candidate_features(layout, batch, candidates, arrays, users, best, np.array([False, True]))
    names = layout.names
    assert found.shape == (*block.shape, len(names))
    assert found.dtype == np.float32
    return {name: found[:, :, place] for place, name in enumerate(names)}


def test_affinity_by_hand(arrays: ItemArrays) -> None:
    # Units (1, 0), (0, 1), (.6, .8), (0, 0); the history holds items 0 and 1, 1 being the newer.
    batch = batch_of(history((0, 0, 2), (1, 0, 1)), history())
    profiles = affinity_profiles(batch, arrays.affinity_units)
    np.testing.assert_allclose(profiles, [[0.5**0.5, 0.5**0.5], [0, 0]], atol=1e-6)
    found = features_of(arrays, batch, [[0, 1, 2], [0, 1, 2]])
    np.testing.assert_allclose(found["affinity_score"][0], [0.7071, 0.7071, 0.98995], atol=1e-4)
    np.testing.assert_allclose(found["affinity_near_max"][0], [1, 1, 0.8], atol=1e-6)
    np.testing.assert_allclose(found["affinity_near_mean"][0], [0.5, 0.5, 0.7], atol=1e-6)
    np.testing.assert_allclose(found["affinity_near_last"][0], [0, 1, 0.8], atol=1e-6)
    for name in ("score", "near_max", "near_mean", "near_last"):
        assert (found[f"affinity_{name}"][1] == 0).all(), "nothing is known of who has no history"


def test_a_profile_is_made_of_the_newest_items(arrays: ItemArrays) -> None:
    old, new = (0, 0, 9), (1, 0, 1)
    batch = batch_of(history(old, *[new] * PROFILE))
    np.testing.assert_allclose(affinity_profiles(batch, arrays.affinity_units), [[0, 1]], atol=1e-6)


def test_names_are_distinct_and_grow_with_the_attributes() -> None:
    assert layout_of(0).names[-len(SOURCES.names) :] == [f"source_{name}" for name in SOURCES.names]
    assert len(layout_of(2).names) == len(layout_of(0).names) + 4
    assert layout_of(2).names[-4:] == [
        "attribute_0",
        "attribute_1",
        "attribute_0_last",
        "attribute_1_last",
    ]
    assert len(set(layout_of(4).names)) == len(layout_of(4).names)


SHARE = (1 / 1.1 + 1) / (1 / 1.1 + 1 / 1.05 + 1)
"""Part of the first and third of three events whose weights by age are 1/1.1, 1/1.05 and 1."""


# Three events, oldest first: item 0 bought 12 days ago, item 1 clicked 4 days ago, item 0 bought 2 days ago.
EXPECTED: dict[str, Any] = {
    # Twice the unit vectors times (1.5, 2), and three times them times (1, -1); the best are 5 and 7.
    "user_score": [3, 5, 4, -3],
    "user_score_below_best": [-2, 0, -1, -8],
    "co_purchase_score": [3, -0.6, -3, -3],
    "co_purchase_below_best": [-4, -7.6, -10, -10],
    "item_near_max": [1, 1, 0.8, -0.6],
    "item_near_mean": [(1 + 0.6 + 1) / 3, (0.6 + 1 + 0.6) / 3, 0.8 / 3, (-1 - 0.6 - 1) / 3],
    "item_near_last": [1, 0.6, 0, -1],
    "text_near_max": [1, 1, 1, 0.8],
    "text_near_mean": [2 / 3, 1 / 3, 2 / 3, (0.8 + 0.6 + 0.8) / 3],
    "text_near_last": [1, 0, 1, 0.8],
    # Weights by age: 1/3, 1/2, 1. Item 0 brings 1 (.5); item 1 brings 0 (.5) and 2 (.3).
    "affinity_score": [0.8944272, 0.4472136, 0.8944272, 0],
    "affinity_near_max": [1, 1, 0.8, 0],
    "affinity_near_mean": [2 / 3, 1 / 3, 2 / 3, 0],
    "affinity_near_last": [1, 0, 0.6, 0],
    "together_sum": [0.25, 0.5 * 4 / 3, 0.15, 0],
    "together_last": [0, 0.5, 0, 0],
    "follow_sum": [0, 0.5 * 4 / 3, 0.25 * 4 / 3 + 0.375, 0],
    "follow_last": [0, 0.5, 0.25, 0],
    "text_table_sum": [0, 0, 0.9 * 4 / 3, 0.3],
    "text_near_recent": [0.1, 0.2, 0.3, 0.4],
    "own_count": np.log1p([2, 1, 0, 0]),
    "own_recent": np.log1p([1 / 1.1 + 1, 1 / 1.05, 0, 0]),
    "own_share": [2 / 3, 1 / 3, 0, 0],
    "own_days_since": np.log1p([2, 4, 365, 365]),
    "own_events_since": np.log1p([0, 1, 100_000, 100_000]),
    # Item 0 came back after 10 days, item 1 is expected after its typical 20.
    "own_due": [np.log(3 / 11), np.log(5 / 21), 0, 0],
    "own_month": np.log1p([0.5 ** (12 / 30) + 0.5 ** (2 / 30), 0.5 ** (4 / 30), 0, 0]),
    "own_season": np.log1p([0.5 ** (12 / 120) + 0.5 ** (2 / 120), 0.5 ** (4 / 120), 0, 0]),
    "own_visits": [2 / 3, 1 / 3, 0, 0],
    # As together_sum, with weights 1/1.1, 1/1.05 and 1.
    "together_long": [0.5 / 1.05, 0.5 * (1 / 1.1 + 1), 0.3 / 1.05, 0],
    "own_clicks": np.log1p([0, 1, 0, 0]),
    "repeat_rate": [0.4, 0.3, 0.2, 0.1],
    "gap_days": np.log1p([10, 20, 30, 40]),
    "log_count": np.log1p([10, 5, 1, 0]),
    # Item 0 sold 500 (8 times), 40 and 5 days before, item 1 five times 365 days before, item 2 yesterday.
    "log_sold": np.log1p([10, 5, 1, 0]),
    "log_sold_7": np.log1p([1, 0, 1, 0]),
    "log_sold_28": np.log1p([1, 0, 1, 0]),
    "log_sold_90": np.log1p([2, 0, 1, 0]),
    "log_sold_365": np.log1p([2, 5, 1, 0]),
    "log_days_on_sale": np.log1p([500, 365, 1, 0]),
    "trend": [np.log(5 / 2), 0, np.log(5 / 2), 0],
    "is_new": [0, 0, 0, 1],
    "log_price": [1, 2, 3, 4],
    "price_above_usual": [1 - 4 / 3, 2 - 4 / 3, 3 - 4 / 3, 4 - 4 / 3],
    "history_length": np.log1p([3] * 4),
    "history_repeats": [1 / 3] * 4,
    "days_since_last": np.log1p([2] * 4),
    "source_user_vector": [1] * 4,
    "source_item_to_item": [0] * 4,
    "source_text_neighbours": [1] * 4,
    "source_repeat": [0] * 4,
    "source_popular": [0] * 4,
    "source_intent": [1] * 4,
    "source_co_purchase": [0] * 4,
    "source_new_items": [1] * 4,
    # Items 0 and 2 have values (0, 1), item 1 has (1, none).
    "attribute_0": [SHARE, 1 - SHARE, SHARE, 0],
    "attribute_1": [SHARE, 0, SHARE, 0],
    "attribute_0_last": [1, 0, 1, 0],
    "attribute_1_last": [1, 0, 1, 0],
}


def test_every_feature_by_hand(arrays: ItemArrays) -> None:
    batch = batch_of(history((0, 0, 12), (1, 1, 4), (0, 0, 2)))
    found = features_of(arrays, batch, [[0, 1, 2, 3]], sources=0b10100101)
    assert list(found) == list(EXPECTED)
    for name, values in EXPECTED.items():
        assert found[name][0].tolist() == pytest.approx(list(values), abs=1e-5), name


def test_an_empty_history_has_finite_neutral_features(arrays: ItemArrays) -> None:
    found = features_of(arrays, batch_of(EMPTY), [[0, 3]])
    assert all(np.isfinite(values).all() for values in found.values())
    for name in (
        "item_near_max",
        "text_near_mean",
        "own_count",
        "own_due",
        "price_above_usual",
        "history_length",
    ):
        assert found[name].tolist() == [[0.0, 0.0]], name
    np.testing.assert_allclose(found["days_since_last"], np.log1p(365.0), rtol=1e-6)
    np.testing.assert_allclose(found["own_days_since"], np.log1p(365.0), rtol=1e-6)


def test_without_statistics_and_timestamps_features_are_finite(text_vectors: FloatArray) -> None:
    data = make_dataset([], [f"i{n}" for n in range(60)])
    arrays = make_recommender(data, text_vectors).arrays
    past = History(np.array([3, 4], np.int32), np.zeros(2, np.int8), np.zeros(2, np.int64))
    found = features_of(arrays, batch_of(past, EMPTY, now=0), [[3, 5], [0, 1]])
    assert all(np.isfinite(values).all() for values in found.values())
    assert found["own_days_since"][0, 0] == 0.0
    assert found["days_since_last"][0, 0] == 0.0
    assert found["is_new"].tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_an_event_from_the_future_is_no_time_ago(arrays: ItemArrays) -> None:
    found = features_of(arrays, batch_of(history((0, 0, -3))), [[0]])
    assert found["own_days_since"].tolist() == [[0.0]]
    assert found["days_since_last"].tolist() == [[0.0]]


def test_a_basket_is_one_visit_however_many_lines_it_has(arrays: ItemArrays) -> None:
    basket = history((0, 0, 5), (1, 0, 5), (0, 0, 5), (0, 0, 1))
    found = features_of(arrays, batch_of(history((2, 0, 9)), basket), [[0, 1], [0, 1]])
    # Two visits: item 0 was bought three times (more than once a visit counts as every visit), item 1 in one.
    assert found["own_visits"].tolist() == [[0.0, 0.0], [1.0, 0.5]]


def test_long_memory_reaches_a_hundred_events_back(arrays: ItemArrays) -> None:
    past = history((1, 0, 300.0), *[(3, 0, 200.0 - n) for n in range(99)])
    found = features_of(arrays, batch_of(past), [[0, 2]])
    assert found["together_sum"].tolist() == [[0.0, 0.0]]
    np.testing.assert_allclose(
        found["together_long"], [[0.5 / (1 + 99 / 20), 0.3 / (1 + 99 / 20)]], rtol=1e-5
    )
    older = history((1, 0, 300.0), *[(3, 0, 200.0 - n) for n in range(100)])
    assert features_of(arrays, batch_of(older), [[0, 2]])["together_long"].tolist() == [[0.0, 0.0]]


def test_padding_is_all_zero(arrays: ItemArrays) -> None:
    found = features_of(arrays, batch_of(history((0, 0, 1))), [[1, -1, -1]])
    assert all((values[0, 1:] == 0).all() for values in found.values())
    assert found["user_score"][0, 0] == pytest.approx(5.0)


def test_similarity_looks_at_ten_recent_items_only(arrays: ItemArrays) -> None:
    long = history(*([(3, 0, 40.0)] + [(0, 0, 20.0 - n) for n in range(10)]))
    found = features_of(arrays, batch_of(long), [[0, 3]])
    assert found["item_near_max"][0].tolist() == [1.0, -1.0], "item 3 is eleven events ago"
    assert found["own_count"][0, 1] == pytest.approx(np.log1p(1)), "but what is counted is the whole history"


def test_recency_weights_and_spread_by_hand(arrays: ItemArrays) -> None:
    batch = batch_of(history((0, 0, 3), (1, 0, 2)), history((1, 0, 1)))
    weights = recency_weights(batch)
    assert weights.tolist() == [0.5, 1.0, 1.0]
    sums = spread(batch, arrays.statistics.together, 4, weights)
    # First query: item 0 brings 1 at half weight, item 1 brings 0 and 2; second query: item 1 alone.
    assert dict(zip(sums.keys.tolist(), sums.sums.tolist(), strict=True)) == pytest.approx(
        {0: 0.5, 1: 0.25, 2: 0.3, 4: 0.5, 6: 0.3}
    )


def test_demand_is_what_was_sold_before_the_day_of_each_query(arrays: ItemArrays) -> None:
    """The same candidates, asked for today, in the morning 5 days ago, and the day after that."""
    batch = batch_histories(
        [EMPTY.items] * 3, [EMPTY.kinds] * 3, [EMPTY.times] * 3, [NOW, NOW - 5 * DAY + 60, NOW - 4 * DAY]
    )
    found = features_of(arrays, batch, [[0, 1, 2, 3]] * 3)
    np.testing.assert_allclose(
        found["log_sold_7"], np.log1p([[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]), rtol=1e-6
    )
    np.testing.assert_allclose(
        found["log_sold"], np.log1p([[10, 5, 1, 0], [9, 5, 0, 0], [10, 5, 0, 0]]), rtol=1e-6
    )
    assert found["is_new"].tolist() == [[0, 0, 0, 1], [0, 0, 1, 1], [0, 0, 1, 1]]


def test_without_factors_their_features_are_zero(arrays: ItemArrays) -> None:
    none = replace(arrays, factor_vectors=np.zeros((4, 0), np.float32))
    batch = batch_of(history((0, 0, 1)))
    users = UserVectors(TOWER[None], np.zeros((1, 0), np.float32), AFFINITY[:1])
    rows = np.array([[0, 1, 2, 3]], np.int32)
    candidates = Candidates(rows, np.ones((1, 4), np.int16), np.ones((1, 4), np.float32))
    found = candidate_features(
        layout_of(2),
        batch,
        candidates,
        none,
        users,
        np.array([[5.0, 0.0]], np.float32),
        np.array([False, True]),
    )
    names = layout_of(2).names
    for name in ("co_purchase_score", "co_purchase_below_best"):
        assert found[0, :, names.index(name)].tolist() == [0.0] * 4
    assert found[0, :, names.index("user_score")].tolist() == pytest.approx([3, 5, 4, -3])


def test_one_attribute_less_is_two_features_less(arrays: ItemArrays) -> None:
    one = replace(
        arrays, statistics=replace(arrays.statistics, attributes=arrays.statistics.attributes[:, :1])
    )
    assert "attribute_1" not in features_of(one, batch_of(EMPTY), [[0]])
