from __future__ import annotations

import numpy as np
import pytest

from conf.schema import SplitKind
from features.data.dataset import BoolArray, Dataset, FloatArray
from features.data.histories import histories_of
from ranking.evaluation.offline import offline_system, tower_system
from ranking.recommender import Recommender
from tests.ranking.evaluated import split_of
from tests.synthetic import make_recommender, random_towers


@pytest.fixture(scope="module")
def recommender(dataset: Dataset, text_vectors: FloatArray) -> Recommender:
    towers = random_towers(text_vectors.shape[1], len(dataset.catalogue), len(dataset.kinds))
    return make_recommender(dataset, text_vectors, towers=towers)


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("share", [1.0, 0.4, 0.02])
def test_the_user_tower_alone_ranks_by_its_inner_products(
    recommender: Recommender, dataset: Dataset, exclude_seen: bool, share: float
) -> None:
    queries = split_of(dataset, SplitKind.leave_one_out).test
    items = len(dataset.catalogue)
    allowed: BoolArray = np.random.default_rng(0).permutation(items) < share * items
    lists = tower_system(recommender, dataset.events, exclude_seen)(queries, None if share == 1 else allowed)
    batch = histories_of(dataset.events, queries)
    scores = recommender.user_vectors(batch) @ recommender.arrays.item_vectors.T
    scores[:, ~allowed] = -np.inf
    if exclude_seen:
        scores[batch.owners(), batch.items] = -np.inf
    assert lists.items.shape == (len(queries), 100)
    for row, score in zip(lists.items, scores, strict=True):
        listed = row[row >= 0]
        assert len(listed) == np.isfinite(score).sum()
        np.testing.assert_allclose(score[listed], np.sort(score)[::-1][: len(listed)], rtol=1e-4, atol=1e-5)


def test_who_has_no_history_gets_popular_items(recommender: Recommender, dataset: Dataset) -> None:
    queries = split_of(dataset, SplitKind.leave_one_out).test.select(np.arange(2))
    begin = dataset.events.offsets[queries.user]
    stranger = type(queries)(
        queries.user, begin, queries.time, queries.target_offsets, queries.targets, queries.target_kinds
    )
    lists = tower_system(recommender, dataset.events, False)(stranger)
    assert lists.items[0, :20].tolist() == recommender.indexes.by_popularity[:20].tolist()


def test_one_filter_for_all_queries_holds_in_the_pipeline(recommender: Recommender, dataset: Dataset) -> None:
    queries = split_of(dataset, SplitKind.leave_one_out).test
    allowed = np.arange(len(dataset.catalogue)) % 5 == 0
    lists = offline_system(recommender, dataset.events, True)(queries, allowed)
    batch = histories_of(dataset.events, queries)
    seen = set(zip(batch.owners().tolist(), batch.items.tolist(), strict=True))
    for query, row in enumerate(lists.items):
        listed = row[row >= 0].tolist()
        # The list is as long as it can be: every permitted item.
        assert set(listed) == {i for i in np.flatnonzero(allowed).tolist() if (query, i) not in seen}
