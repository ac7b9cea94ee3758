"""The layout of the feature matrix: names, order, what each group writes, and heads that know less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conf.errors import InputError
from features.candidates.contract import FeatureColumns, FeatureInputs, block
from features.candidates.features import BLOCKS, FeatureLayout, affinity_profiles, candidate_features
from features.data.dataset import Dataset, FloatArray
from ranking.scoring.ranker import Ranker
from ranking.sources import SOURCES
from tests.ranking.requests import batch_of, no_limits
from tests.synthetic import make_full_recommender

PUBLISHED = [
    "user_score", "user_score_below_best", "co_purchase_score", "co_purchase_below_best",
    "item_near_max", "item_near_mean", "item_near_last", "text_near_max", "text_near_mean",
    "text_near_last", "affinity_score", "affinity_near_max", "affinity_near_mean", "affinity_near_last",
    "together_sum", "together_last", "follow_sum", "follow_last", "text_table_sum", "text_near_recent",
    "own_count", "own_recent", "own_share", "own_days_since", "own_events_since", "own_due",
    "own_month", "own_season", "own_visits", "together_long", "own_clicks", "repeat_rate", "gap_days",
    "log_count", "log_sold", "log_sold_7", "log_sold_28", "log_sold_90", "log_sold_365",
    "log_days_on_sale", "trend", "is_new", "log_price", "price_above_usual", "history_length",
    "history_repeats", "days_since_last", "source_user_vector", "source_item_to_item",
    "source_text_neighbours", "source_repeat", "source_popular", "source_intent", "source_co_purchase",
    "source_new_items", "attribute_0", "attribute_1", "attribute_0_last", "attribute_1_last",
]  # fmt: skip
"""The order that ranking heads have been published with."""


def test_the_order_is_the_published_one() -> None:
    layout = FeatureLayout(SOURCES.names, 2)
    assert layout.names == PUBLISHED
    assert layout.columns["own_clicks"] == 30
    assert layout.columns.of("log_price", "user_score") == (42, 0)
    assert FeatureLayout.of_width(SOURCES.names, len(PUBLISHED)).attributes == 2


def test_each_group_writes_its_own_columns_and_no_other(dataset: Dataset, text_vectors: FloatArray) -> None:
    recommender = make_full_recommender(dataset, text_vectors)
    batch = batch_of(dataset, [0, 1, 2, 3])
    users = recommender.encode(batch)
    arrays = replace(recommender.arrays, affinity_units=recommender.arrays.text_units)
    users = replace(users, affinity=affinity_profiles(batch, arrays.affinity_units))
    rows = np.tile(np.arange(60, dtype=np.int32), (4, 1))
    masks, clicks = np.full(rows.shape, 255, np.int16), np.array([False, True])
    inputs = FeatureInputs(batch, rows, masks, arrays, users, np.full((2, 4), 9.0, np.float32), clicks)
    layout = recommender.layout
    untouched = np.float32(-77.0)
    for write in dict.fromkeys(part.write for part in BLOCKS):
        features = np.full((*rows.shape, len(layout.names)), untouched)
        write(inputs, layout.columns, features)
        touched = np.flatnonzero((features != untouched).any(axis=(0, 1))).tolist()
        shape = layout.columns.shape
        own = [name for part in BLOCKS if part.write is write for name in part.names(shape)]
        assert touched == sorted(layout.columns.of(*own))


def test_a_group_of_ones_own_gets_the_last_columns(dataset: Dataset, text_vectors: FloatArray) -> None:
    def write_row(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
        features[:, :, columns["row"]] = np.maximum(inputs.rows, 0)

    recommender = make_full_recommender(dataset, text_vectors)
    batch = batch_of(dataset, [0, 5])
    users = recommender.encode(batch)
    candidates, _, best = recommender.retrieve(batch, no_limits(2), users)
    clicks = np.array([False, True])
    usual = recommender.features(batch, candidates, users, best)
    layout = replace(recommender.layout, blocks=(*BLOCKS, block(write_row, "row")))
    found = candidate_features(layout, batch, candidates, recommender.arrays, users, best, clicks)
    assert layout.names == [*recommender.layout.names, "row"]
    np.testing.assert_array_equal(found[:, :, :-1], usual)
    np.testing.assert_array_equal(found[:, :, -1], np.maximum(candidates.rows, 0))


def test_a_head_that_knows_fewer_features_gets_those_in_its_order(
    dataset: Dataset, text_vectors: FloatArray
) -> None:
    recommender = make_full_recommender(dataset, text_vectors)
    assert recommender.layout.selection(recommender.layout.names) is None
    known = ["own_count", "user_score", "source_popular"]
    columns = recommender.layout.selection(known)
    assert columns is not None
    assert columns.tolist() == [20, 0, 51]
    recommender.ranker = Ranker(known, [4]).eval()
    batch = batch_of(dataset, [0, 5])
    users = recommender.encode(batch)
    candidates, _, best = recommender.retrieve(batch, no_limits(2), users)
    features = recommender.features(batch, candidates, users, best)[:, :, [20, 0, 51]]
    scores, _ = recommender.ranker.score(np.ascontiguousarray(features))
    found = recommender.rank(batch, no_limits(2)).scores
    real = candidates.rows >= 0
    np.testing.assert_array_equal(found[real], np.round(scores, 4)[real])


def test_a_head_that_needs_unknown_features_is_refused() -> None:
    with pytest.raises(InputError, match="needs features that are unknown: moon_phase"):
        FeatureLayout(SOURCES.names).selection(["user_score", "moon_phase"])
