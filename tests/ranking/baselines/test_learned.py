from __future__ import annotations

import numpy as np
import pytest

from conf.errors import InputError
from features.data.dataset import FloatArray, IntArray
from ranking.baselines.factors import Als, Ease
from ranking.baselines.items import FrozenText, ItemKnn
from ranking.baselines.registry import BaselineInputs, make_baselines
from tests.ranking.baselines.test_registry import ask, everything, fitted, make_events


def test_item_knn_by_hand() -> None:
    # pairs: (0 -> 1) at distance 1 twice, (1 -> 2) once, (0 -> 2) at distance 2 once; user 3 asks with item 0
    events = make_events([[0, 1, 2], [0, 1], [3], [0]])
    baseline = ItemKnn(window=2, backward=0.5, from_power=0.5, to_power=0.5, shrink=0, recency_power=1.0)
    baseline.fit(events, everything(events), 0, 5)
    counts = np.array([3, 2, 1, 1, 0])
    near = baseline.similar.toarray()
    assert near[0, 1] == pytest.approx(2 / np.sqrt(counts[0] * counts[1]))
    assert near[0, 2] == pytest.approx(2**-0.5 / np.sqrt(counts[0] * counts[2]))
    assert near[1, 2] == pytest.approx(1 / np.sqrt(counts[1] * counts[2]))
    assert near[1, 0] == pytest.approx(near[0, 1] / 2)
    assert near[3].sum() == near[4].sum() == 0
    assert np.diagonal(near).sum() == 0
    items, scores = baseline.recommend(events, ask(events, [3]), 4, True)
    assert items.tolist() == [[1, 2, 3, 4]]  # 3 and 4 by popularity, below zero
    np.testing.assert_allclose(scores[0, :2], [near[0, 1], near[0, 2]], rtol=1e-6)
    assert (scores[0, 2:] < 0).all()


def test_item_knn_weighs_newer_items_more() -> None:
    events = make_events([[0, 1], [2, 3], [0, 2], [2, 0]])
    baseline = ItemKnn(window=1, backward=0.0, shrink=0, recency_power=1.0)
    baseline.fit(events, np.array([2, 4, 4, 6]), 0, 4)  # users 2 and 3 are asked, not learned from
    items, _ = baseline.recommend(events, ask(events, [2, 3]), 1, True)
    assert items.tolist() == [[3], [1]]


def test_item_knn_does_not_pair_across_users() -> None:
    events = make_events([[0], [1], [0, 2]])
    baseline = ItemKnn(window=5)
    baseline.fit(events, everything(events), 0, 3)
    assert baseline.similar[0, 1] == baseline.similar[1, 0] == 0
    assert baseline.similar[0, 2] > 0


def test_item_knn_leads_with_own_items_where_they_may_repeat() -> None:
    events = make_events([[0, 1], [0, 1], [0, 1], [0, 0, 0, 4]])
    baseline = ItemKnn()
    baseline.fit(events, everything(events), 0, 6)
    items, _ = baseline.recommend(events, ask(events, [3]), 4, False)
    assert items[0, 0] == 0
    assert set(items[0, :3].tolist()) == {0, 1, 4}


def test_item_knn_finds_planted_pairs_better_than_popularity() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.permutation(60).reshape(30, 2)
    histories = [pairs[rng.choice(30, size=4, replace=False)].ravel().tolist() for _ in range(150)]
    events = make_events(histories)
    queries = ask(events, list(range(150)), end=[7] * 150)
    wanted = events.item[queries.end]
    hits = {}
    for name in ("popularity", "item_knn", "ease", "als"):
        baseline = fitted(name, events, 60, end=queries.end)
        items: IntArray = baseline.recommend(events, queries, 3, True)[0]
        hits[name] = (items == wanted[:, None]).any(axis=1).mean()
    assert hits["popularity"] < 0.2
    assert min(hits["item_knn"], hits["ease"], hits["als"]) > 0.8, hits


def test_ease_solves_its_equations() -> None:
    rng = np.random.default_rng(5)
    events = make_events([rng.choice(12, size=5, replace=False).tolist() for _ in range(60)])
    baseline = Ease(regularisation=3.0)
    baseline.fit(events, everything(events), 0, 12)
    x = np.zeros((60, 12))
    x[events.user, events.item] = 1
    precision = np.linalg.inv(x.T @ x + 3.0 * np.eye(12))
    expected = -precision / np.diagonal(precision)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(baseline.weights, expected, atol=1e-5)


def test_ease_ignores_how_often_and_says_what_it_leaves_out() -> None:
    once = make_events([[0, 1], [1, 2], [0, 2], [0]])
    often = make_events([[0, 1, 1], [1, 2, 1], [0, 2], [0, 0]])
    small = Ease(max_items=2)
    weights = []
    for events in (once, often):
        baseline = Ease()
        baseline.fit(events, everything(events), 0, 3)
        weights.append(baseline.weights)
    np.testing.assert_allclose(weights[0], weights[1], atol=1e-7)
    small.fit(once, everything(once), 0, 4)
    assert small.describe().endswith("only the 2 most popular of 4 items, the rest by popularity")
    items, _ = small.recommend(once, ask(once, [3]), 3, True)
    assert items.tolist() == [[1, 2, 3]]


def test_als_reads_the_history_of_the_query_not_of_the_fit() -> None:
    events = make_events([[0, 1, 2], [0, 1, 2], [3, 4, 5], [3, 4, 5], [0, 1, 3, 4]])
    baseline = Als(factors=2)
    baseline.fit(events, np.array([3, 6, 9, 12, 12]), 0, 6)  # the last user is unknown to the fit
    items, _ = baseline.recommend(events, ask(events, [4], end=[2]), 1, True)
    assert items.tolist() == [[2]]


def test_frozen_text_by_hand() -> None:
    vectors: FloatArray = np.array([[2, 0], [0, 3], [1, 1], [-1, 0], [0, 0]], dtype=np.float32)
    events = make_events([[1, 0], [0, 1], [4]])
    baseline = FrozenText(vectors, max_history=2, recency_power=1.0)
    baseline.fit(events, everything(events), 0, 5)
    items, scores = baseline.recommend(events, ask(events, [0]), 5, False)
    # newest item 0 with weight 1, item 1 with 1/2
    mean = np.array([1.0, 0.5]) / np.hypot(1.0, 0.5)
    assert items.tolist() == [[2, 0, 1, 4, 3]]
    np.testing.assert_allclose(scores[0], [mean.sum() / np.sqrt(2), mean[0], mean[1], 0, -mean[0]], atol=1e-6)
    short = FrozenText(vectors, max_history=1)
    short.fit(events, everything(events), 0, 5)
    assert short.recommend(events, ask(events, [1]), 1, False)[0].tolist() == [[1]]
    # a history without any text says nothing: popularity
    assert baseline.recommend(events, ask(events, [2]), 2, True)[0].tolist() == [[0, 1]]


def test_frozen_text_needs_a_vector_per_item() -> None:
    with pytest.raises(InputError, match="frozen_text needs item texts"):
        make_baselines(["frozen_text"], BaselineInputs())
    with pytest.raises(ValueError, match="2 text vectors for 3 items"):
        FrozenText(np.eye(2, dtype=np.float32)).fit(make_events([[0]]), np.array([1]), 0, 3)
