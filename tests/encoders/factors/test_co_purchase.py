from __future__ import annotations

import importlib
import tracemalloc
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from conf.schema import FactorConfig
from encoders.factors import co_purchase
from encoders.factors.co_purchase import (
    LONGEST,
    Factors,
    behaviour,
)
from features.data.dataset import Dataset, FloatArray
from features.data.prefixes import drawn_users, user_blocks
from features.data.statistics import Neighbours
from tests.encoders.factors.random_shop import ITEMS, KINDS, batch_of, random_histories
from tests.synthetic import START, make_dataset, make_factors


def confidences(histories: list[list[tuple[int, int]]], weights: FloatArray) -> sparse.csr_matrix:
    """Return log(1 + summed weight) per history and item, computed one event at a time."""
    matrix = np.zeros((len(histories), ITEMS), np.float32)
    for query, own in enumerate(histories):
        for item, kind in own:
            matrix[query, item] += weights[kind]
    return sparse.csr_matrix(np.log1p(matrix))


def reference(factors: Factors, regularisation: float) -> Any:
    """Return implicit's model around the same item factors."""
    limits = importlib.import_module("threadpoolctl").threadpool_limits
    with limits(1, "blas"):
        model = importlib.import_module("implicit.cpu.als").AlternatingLeastSquares(
            factors=factors.vectors.shape[1],
            regularization=regularisation,
            alpha=float(factors.confidence[0]),
        )
    model.item_factors = factors.vectors
    return model


@pytest.mark.parametrize(("dim", "regularisation"), [(8, 0.1), (20, 0.01), (3, 5.0)])
def test_a_users_vector_is_what_implicit_solves(shop: Dataset, dim: int, regularisation: float) -> None:
    """Histories shorter and longer than there are factors, with repeats and with untouched items."""
    factors = make_factors(shop, dim=dim, regularisation=regularisation)
    histories = random_histories(150, 40)
    found = factors.users(batch_of(*histories))
    model = reference(factors, regularisation)
    expected = model.recalculate_user(np.arange(150), confidences(histories, shop.kind_weights))
    assert np.abs(expected).max() > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_one_event_by_hand() -> None:
    """Two items with factors (1, 0) and (0, 2), regularisation 1: the Gram matrix plus it is diag(2, 5)."""
    vectors = np.array([[1.0, 0.0], [0.0, 2.0]], np.float32)
    dual = np.array([[0.5, 0.0], [0.0, 0.4]], np.float32)  # times the inverse
    factors = Factors(vectors, dual, np.array([10.0], np.float32), np.array([1.0, 0.5], np.float32))
    found = factors.users(batch_of([(0, 0)], [(1, 1)], [(0, 0), (0, 0), (1, 0)]))
    # Confidence 10 log(1 + weight); the first equation is (2 + (c - 1) 1 1) u = c 1, the second has (0, 2).
    bought, clicked, twice = 10 * np.log(2), 10 * np.log(1.5), 10 * np.log(3)
    expected = [
        [bought / (1 + bought), 0],
        [0, 2 * clicked / (5 + 4 * (clicked - 1))],
        [twice / (1 + twice), 2 * bought / (5 + 4 * (bought - 1))],
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("confidence", [0.5, 1.0, 40.0, 1000.0])
@pytest.mark.parametrize("dim", [1, 7, 64])
def test_a_users_vector_solves_the_normal_equations(dim: int, confidence: float) -> None:
    """Confidences above and below that of an absent event, alike items, fewer and more items than factors."""
    rng = np.random.default_rng(dim)
    vectors = (rng.normal(size=(300, dim)) / np.sqrt(dim)).astype(np.float32)
    vectors[200:] = vectors[:100]
    gram = vectors.T.astype(np.float64) @ vectors + 0.1 * np.eye(dim)
    dual = np.linalg.solve(gram, vectors.T).T.astype(np.float32)
    weights = np.array([1.0, 0.25, 0.0], np.float32)
    factors = Factors(vectors, dual, np.array([confidence], np.float32), weights)
    histories = [
        list(zip(rng.integers(0, 300, n).tolist(), rng.integers(0, 3, n).tolist(), strict=True))
        for n in (0, 1, 2, 5, 30, 100, LONGEST)
    ]
    found = factors.users(batch_of(*histories))
    for user, history in zip(found, histories, strict=True):
        items = np.array([item for item, _ in history], dtype=np.int64)
        worth = np.bincount(items, weights[[kind for _, kind in history]], minlength=300)
        sure = confidence * np.log1p(worth)
        seen = np.flatnonzero(sure)
        system = gram + vectors[seen].T @ ((sure[seen, None] - 1) * vectors[seen])
        expected = np.linalg.solve(system, vectors[seen].T @ sure[seen])
        np.testing.assert_allclose(user, expected, atol=1e-5 * max(1.0, np.abs(expected).max()))


def test_a_stronger_kind_weighs_more_and_repeats_add_up(factors: Factors) -> None:
    item = 4
    bought, clicked, four = factors.users(batch_of([(item, 0)], [(item, 1)], [(item, 1)] * 4))
    own = factors.vectors[item]
    assert bought @ own > clicked @ own > 0
    np.testing.assert_allclose(four, bought, rtol=1e-5, err_msg="four clicks of 0.25 are worth a purchase")


def test_kinds_without_weight_are_not_read(factors: Factors) -> None:
    plain, viewed, only = factors.users(
        batch_of([(3, 0), (5, 1)], [(3, 0), (9, 2), (5, 1), (3, 2)], [(9, 2), (3, 2)])
    )
    assert np.array_equal(plain, viewed)
    assert not only.any()


def test_kinds_without_weight_are_not_fitted(shop: Dataset, factors: Factors) -> None:
    events = shop.events
    viewed = events.kind == 2
    assert viewed.any()
    # Views of another item: if they were read, that item would have a vector.
    other = replace(events, item=np.where(viewed, ITEMS - 1, events.item).astype(np.int32))
    end = events.offsets[1:]
    again = Factors.fit(other, end, ITEMS, shop.kind_weights, FactorConfig(dim=8), 0)
    assert again is not None
    assert np.array_equal(again.vectors, factors.vectors)


def test_an_empty_history_has_a_zero_vector(factors: Factors) -> None:
    found = factors.users(batch_of([], [(1, 0)], []))
    assert found.shape == (3, 8)
    assert found.dtype == np.float32
    assert not found[0].any()
    assert not found[2].any()
    assert found[1].any()
    assert factors.users(batch_of([], [])).tolist() == [[0.0] * 8] * 2
    assert factors.users(batch_of()).shape == (0, 8)


def test_a_vector_does_not_depend_on_the_histories_beside_it(factors: Factors) -> None:
    histories = random_histories(133, 60, seed=1)
    together = factors.users(batch_of(*histories))
    assert np.isfinite(together).all()
    for place, history in enumerate(histories):
        np.testing.assert_allclose(factors.users(batch_of(history))[0], together[place], rtol=1e-5, atol=1e-6)
    backwards = factors.users(batch_of(*histories[::-1]))[::-1]
    np.testing.assert_allclose(backwards, together, rtol=1e-5, atol=1e-6)


def test_the_order_of_a_history_does_not_matter(factors: Factors) -> None:
    history = random_histories(1, 40, seed=3)[0] + [(1, 0), (2, 1), (1, 0)]
    forth, back = factors.users(batch_of(history, history[::-1]))
    np.testing.assert_allclose(forth, back, atol=1e-6)


def test_only_the_most_recent_events_are_read(factors: Factors) -> None:
    tail = [(n % 7, 0) for n in range(LONGEST)]
    short, longer, within = factors.users(
        batch_of(tail, [(20, 0)] * 50 + tail, [(20, 0)] * 50 + tail[: LONGEST - 50])
    )
    assert np.array_equal(short, longer)
    assert not np.allclose(short, within, atol=1e-3), "an event inside the window is read"


def test_what_an_item_without_events_has_is_not_lent() -> None:
    """New items that read alike arrive together, and their rows are not written yet."""
    vectors = np.array([[1.0, 2.0], [3.0, 4.0], [np.nan, np.inf]], np.float32)
    factors = Factors(vectors, 2 * vectors, np.ones(1, np.float32), np.ones(1, np.float32))
    near = Neighbours(np.array([[2, 1, -1]], np.int32), np.array([[0.9, 0.5, 0.0]], np.float32))
    borrowed, dual = factors.imputed(near, np.array([True, True, False]))
    np.testing.assert_allclose(borrowed, [[3.0, 4.0]])
    np.testing.assert_allclose(dual, [[6.0, 8.0]])


def test_items_without_events_have_zero_vectors(factors: Factors) -> None:
    silent = [ITEMS - 3, ITEMS - 2, ITEMS - 1]
    assert not factors.vectors[silent].any()
    assert not factors.dual[silent].any()
    assert factors.vectors[: ITEMS - 3].any(axis=1).all()
    alone, beside, plain = factors.users(batch_of([(ITEMS - 1, 0)], [(2, 0), (ITEMS - 1, 0)], [(2, 0)]))
    assert not alone.any(), "an item that nobody bought says nothing about who does"
    np.testing.assert_allclose(beside, plain, atol=1e-6)


def test_the_dual_solves_the_gram_matrix(shop: Dataset) -> None:
    factors = make_factors(shop, dim=5, regularisation=0.3)
    vectors = factors.vectors.astype(np.float64)
    gram = vectors.T @ vectors + 0.3 * np.eye(5)
    np.testing.assert_allclose(factors.dual @ gram, vectors, atol=1e-4)


@pytest.mark.parametrize("weights", [KINDS, {"purchase": 1.0}])
def test_without_events_there_are_no_factors(weights: dict[str, float]) -> None:
    data = make_dataset([], ["a", "b"], weights)
    assert Factors.fit(data.events, data.events.offsets[1:], 2, data.kind_weights, FactorConfig(), 0) is None


def test_without_events_that_count_there_are_no_factors() -> None:
    data = make_dataset([("u", "a", "view", START), ("v", "b", "view", START)], ["a", "b"], KINDS)
    assert Factors.fit(data.events, data.events.offsets[1:], 2, data.kind_weights, FactorConfig(), 0) is None


def test_no_width_means_no_factors(shop: Dataset) -> None:
    config = FactorConfig(dim=0)
    assert Factors.fit(shop.events, shop.events.offsets[1:], ITEMS, shop.kind_weights, config, 0) is None


def test_only_events_before_the_end_are_known(shop: Dataset) -> None:
    events, config = shop.events, FactorConfig(dim=4)
    end = np.minimum(events.offsets[:-1] + 3, events.offsets[1:])
    before = Factors.fit(events, end, ITEMS, shop.kind_weights, config, 0)
    known = np.arange(len(events)) < end[events.user]
    other = replace(events, item=np.where(known, events.item, 7).astype(np.int32))
    after = Factors.fit(other, end, ITEMS, shop.kind_weights, config, 0)
    assert before is not None
    assert after is not None
    assert np.array_equal(before.vectors, after.vectors)


def test_the_same_seed_gives_the_same_factors(shop: Dataset, factors: Factors) -> None:
    again, other = make_factors(shop), make_factors(shop, seed=1)
    for name in Factors.__dataclass_fields__:
        assert np.array_equal(getattr(again, name), getattr(factors, name)), name
    assert not np.array_equal(other.vectors, factors.vectors)


def test_saved_factors_are_equal(tmp_path: Path, factors: Factors) -> None:
    factors.save(tmp_path / "factors.safetensors")
    loaded = Factors.load(tmp_path / "factors.safetensors")
    for name in Factors.__dataclass_fields__:
        before, after = getattr(factors, name), getattr(loaded, name)
        assert np.array_equal(before, after), name
        assert before.dtype == after.dtype == np.float32, name
    batch = batch_of(*random_histories(20, 20))
    assert np.array_equal(loaded.users(batch), factors.users(batch))


def test_people_with_disjoint_tastes_get_their_own_blocks_items_first() -> None:
    """Items 0 to 9 are bought by one half of the people and items 10 to 19 by the other."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(60):
        own = rng.permutation(10)[:6] + 10 * (user % 2)
        rows += [(f"u{user}", f"i{item}", "purchase", START) for item in own]
    data = make_dataset(rows, [f"i{n}" for n in range(20)])
    factors = make_factors(data, dim=2)
    found = factors.users(batch_of([(0, 0)], [(13, 0)], [(2, 0), (7, 0)]))
    order = np.argsort(-(factors.vectors @ found.T), axis=0)[:10].T
    first, second = list(range(10)), list(range(10, 20))
    assert [sorted(row) for row in order.tolist()] == [first, second, first]


@pytest.mark.parametrize("block", [1, 60, 1 << 18])
def test_behaviour_in_blocks_is_the_matrix_of_all_events(
    shop: Dataset, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    events, end = shop.events, shop.events.offsets[1:] - 1
    users = np.array([0, 3, 4, 17, 39], np.int32)
    monkeypatch.setattr(co_purchase, "user_blocks", partial(user_blocks, size=block))
    matrix = behaviour(events, users, end, ITEMS, shop.kind_weights)
    expected = np.zeros((len(users), ITEMS))
    for row, user in enumerate(users):
        for place in range(events.offsets[user], end[user]):
            expected[row, events.item[place]] += shop.kind_weights[events.kind[place]]
    np.testing.assert_allclose(matrix.toarray(), np.log1p(expected), rtol=1e-6)
    assert matrix.dtype == np.float32


def test_factors_of_drawn_users_know_their_items_alone(shop: Dataset) -> None:
    events, config = shop.events, FactorConfig(dim=4, max_events=60)
    users = drawn_users(events.lengths(), 60, 0, 8)
    assert 0 < len(users) < events.users
    factors = Factors.fit(events, events.offsets[1:], ITEMS, shop.kind_weights, config, 0)
    assert factors is not None
    counted = np.isin(events.user, users) & (shop.kind_weights[events.kind] > 0)
    assert np.flatnonzero(factors.known).tolist() == np.unique(events.item[counted]).tolist()


def test_which_items_have_factors_takes_no_copy_of_the_factors() -> None:
    vectors = np.zeros((20_000, 64), dtype=np.float32)
    vectors[3, 5], vectors[7] = -1.0, 2.0
    factors = Factors(vectors, vectors, np.ones(1, np.float32), np.ones(1, np.float32))
    tracemalloc.start()
    known = factors.known
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.flatnonzero(known).tolist() == [3, 7]
    assert peak < vectors.nbytes / 10
