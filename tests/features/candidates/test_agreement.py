"""Features of candidates agree: alone and in a batch, and with those made the simple way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from features.candidates.features import (
    Candidates,
    FeatureLayout,
    UserVectors,
    affinity_profiles,
    candidate_features,
)
from features.data.dataset import Dataset, FloatArray
from features.data.histories import batch_histories
from features.data.statistics import DAY
from ranking.sources import SOURCES
from ranking.types import History
from tests.features.slow_features import slow_features
from tests.synthetic import EMPTY, START, batch_at, history_of, make_factors, make_recommender, random_units


def full(dataset: Dataset, users: list[int], rows: np.ndarray, vectors: FloatArray) -> np.ndarray:
    arrays = make_recommender(dataset, vectors, factors=make_factors(dataset)).arrays
    asking = UserVectors(
        random_units(60, vectors.shape[1])[users],
        random_units(60, 8, seed=1)[users],
        np.zeros((len(users), 0), np.float32),
    )
    batch = batch_at(START + 60 * DAY, [history_of(dataset, u) for u in users])
    candidates = Candidates(rows, np.ones(rows.shape, np.int16), np.ones(rows.shape, np.float32))
    return candidate_features(
        FeatureLayout(SOURCES.names, arrays.statistics.attributes.shape[1]),
        batch,
        candidates,
        arrays,
        asking,
        np.zeros((len(users), 2), np.float32),
        np.array([False, True]),
    )


def test_features_do_not_depend_on_what_is_beside_them(dataset: Dataset, text_vectors: FloatArray) -> None:
    rng = np.random.default_rng(0)
    users = list(range(12))
    rows = np.stack([rng.permutation(60)[:15] for _ in users]).astype(np.int32)
    together = full(dataset, users, rows, text_vectors)
    assert np.isfinite(together).all()
    for place, user in enumerate(users):
        np.testing.assert_allclose(
            full(dataset, [user], rows[place : place + 1], text_vectors)[0],
            together[place],
            rtol=1e-6,
            atol=1e-6,
        )
    for column in (0, 7, 14):
        np.testing.assert_allclose(
            full(dataset, users, rows[:, column : column + 1], text_vectors)[:, 0],
            together[:, column],
            rtol=1e-6,
            atol=1e-6,
        )


def test_features_are_those_of_the_simple_way(dataset: Dataset, text_vectors: FloatArray) -> None:
    """Padding, repeated events, empty histories, other moments, attributes without a value."""
    rng = np.random.default_rng(5)
    arrays = make_recommender(dataset, text_vectors, factors=make_factors(dataset)).arrays
    codes = np.where(rng.random((60, 3)) < 0.2, -1, rng.integers(0, 4, (60, 3))).astype(np.int32)
    arrays = replace(
        arrays,
        affinity_units=random_units(60, 12, seed=2),
        statistics=replace(arrays.statistics, attributes=codes),
    )
    past = [history_of(dataset, user) for user in range(20)]
    long = past[7]
    past[3] = EMPTY
    past[7] = History(np.tile(long.items, 12), np.tile(long.kinds, 12), np.tile(long.times, 12))
    batch = batch_histories(
        [h.items for h in past], [h.kinds for h in past], [h.times for h in past],
        [START + int(rng.integers(30, 90)) * DAY for _ in past],
    )  # fmt: skip
    rows = np.stack([rng.permutation(60)[:25] for _ in past]).astype(np.int32)
    rows[rng.random(rows.shape) < 0.1] = -1
    candidates = Candidates(
        rows, rng.integers(1, 256, rows.shape).astype(np.int16), np.ones(rows.shape, np.float32)
    )
    users = UserVectors(
        random_units(20, arrays.item_vectors.shape[1]),
        random_units(20, arrays.factor_vectors.shape[1], seed=1),
        affinity_profiles(batch, arrays.affinity_units),
    )
    best = rng.random((20, 2)).astype(np.float32)
    asked = (batch, candidates, arrays, users, best, np.array([False, True]))
    np.testing.assert_allclose(
        candidate_features(FeatureLayout(SOURCES.names, 3), *asked),
        slow_features(*asked),
        rtol=1e-5,
        atol=2e-6,
    )
