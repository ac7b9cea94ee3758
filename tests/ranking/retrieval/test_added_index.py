"""Items that came after a bundle, searched one by one, and their places among the new ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.data.dataset import Dataset, FloatArray, IntArray
from ranking.retrieval.added_index import AddedIndex
from ranking.retrieval.searcher import VectorSearcher
from tests.ranking.requests import batch_of, no_limits, propose
from tests.ranking.test_new_items import OLD, opened
from tests.ranking.test_new_items import opening as opening

VECTORS = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]], dtype=np.float32)


def index(*hidden: int) -> AddedIndex:
    gone = np.zeros(3, dtype=np.bool_)
    gone[list(hidden)] = True
    return AddedIndex(10, VECTORS, gone)


def test_the_nearest_by_hand() -> None:
    rows, scores = index().search(np.array([[1.0, 0.0], [0.0, 2.0]], dtype=np.float32), 2)
    assert rows.tolist() == [[10, 12], [11, 12]]
    np.testing.assert_allclose(scores, [[1.0, 0.6], [2.0, 1.6]], rtol=1e-6)


def test_hidden_and_forbidden_items_are_left_out_and_short_answers_are_padded() -> None:
    query = np.array([[1.0, 0.0]], dtype=np.float32)
    rows, scores = index(0).search(query, 5)
    assert rows.tolist() == [[12, 11, -1, -1, -1]]
    assert np.isneginf(scores[0, 2:]).all()
    allowed = np.zeros(13, dtype=np.bool_)
    allowed[[3, 11]] = True
    assert index().search(query, 2, allowed)[0].tolist() == [[11, -1]]


@pytest.mark.parametrize("added", [[41, 50], list(range(42, 60))], ids=["few", "many"])
def test_added_items_have_half_of_the_places_for_new_ones(opening: Dataset, added: list[int]) -> None:
    """Six places: the best two or three of those added, then the nearest new ones, each item once."""

    class Added(VectorSearcher):
        def search(self, queries: FloatArray, k: int, allowed: object = None) -> tuple[IntArray, FloatArray]:
            chosen = np.array(added[:k], dtype=np.int32)
            rows = np.pad(chosen, (0, k - len(chosen)), constant_values=-1)
            return np.tile(rows, (len(queries), 1)), np.ones((len(queries), k), dtype=np.float32)

    recommender = opened(opening)
    batch = batch_of(opening, [0, 3, 7])
    usual = propose(recommender, batch, no_limits(3))["new_items"]
    recommender.indexes = replace(recommender.indexes, added=Added())
    found = propose(recommender, batch, no_limits(3))["new_items"]
    for before, after in zip(usual.tolist(), found.tolist(), strict=True):
        first = added[:3]
        assert after == [*first, *(row for row in before if row not in first)][:6]
        assert min(after) >= OLD
