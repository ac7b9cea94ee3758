"""Items without events borrow the factors of those whose texts are nearest."""

from __future__ import annotations

import numpy as np
import pytest

from encoders.factors import co_purchase
from encoders.factors.co_purchase import IMPUTATION_NEIGHBOURS, Factors
from features.data.statistics import Neighbours
from tests.encoders.factors.random_shop import ITEMS, batch_of, random_histories


def nearest(items: int, lists: dict[int, list[tuple[int, float]]]) -> Neighbours:
    """Neighbours of some items as (row, cosine); the others have none."""
    width = max(len(own) for own in lists.values())
    ids, weights = np.full((items, width), -1, np.int32), np.zeros((items, width), np.float32)
    for item, own in lists.items():
        ids[item, : len(own)] = [row for row, _ in own]
        weights[item, : len(own)] = [cosine for _, cosine in own]
    return Neighbours(ids, weights)


def test_lending_by_hand() -> None:
    """Items 0, 1 and 4 have events; 2 reads like 0, 3 and 1, 3 like 2 alone and 5 like nothing."""
    vectors = np.array([[1, 0], [0, 2], [0, 0], [0, 0], [4, 4], [0, 0]], np.float32)
    dual = np.array([[0.5, 0], [0, 0.25], [0, 0], [0, 0], [1, 2], [0, 0]], np.float32)
    before = Factors(vectors, dual, np.array([10.0], np.float32), np.array([1.0], np.float32))
    near = nearest(
        6, {0: [(4, 0.9), (2, 0.8)], 2: [(0, 0.9), (3, 0.8), (1, 0.7)], 3: [(2, 0.8)], 4: [(0, 0.9)]}
    )
    after = before.impute(near)
    # Weights exp(9) and exp(7): item 3, itself without events, lends nothing.
    share = 1 / (1 + np.exp(-2))
    np.testing.assert_allclose(after.vectors[2], [share, 2 * (1 - share)], rtol=1e-5)
    np.testing.assert_allclose(after.dual[2], [0.5 * share, 0.25 * (1 - share)], rtol=1e-5)
    assert not after.vectors[[3, 5]].any(), "nobody to borrow from"
    assert not after.dual[[3, 5]].any(), "nobody to borrow from"
    known = [0, 1, 4]
    assert np.array_equal(after.vectors[known], vectors[known])
    assert np.array_equal(after.dual[known], dual[known])
    assert not before.vectors[2].any(), "the lender keeps its own"
    assert not before.dual[2].any(), "the lender keeps its own"
    assert after.vectors.dtype == after.dual.dtype == np.float32
    assert after.confidence is before.confidence
    assert after.kind_weights is before.kind_weights


def test_at_most_the_nearest_lenders_with_events_lend() -> None:
    """Of the new item's fifty neighbours the first forty are by turns known and new, the others all known."""
    assert IMPUTATION_NEIGHBOURS == 20
    rows = np.arange(51)
    known = (rows % 2 == 1) | (rows > 40)
    vectors = np.where(known, rows, 0)[:, None].astype(np.float32) * np.array([[1, -2]], np.float32)
    factors = Factors(vectors, 3 * vectors, np.ones(1, np.float32), np.ones(1, np.float32))
    cosines = 0.9 - 0.01 * rows
    after = factors.impute(nearest(51, {0: [(int(n), float(cosines[n])) for n in rows[1:]]}))
    lenders = rows[1:40:2]
    assert len(lenders) == IMPUTATION_NEIGHBOURS
    mean = np.average(lenders, weights=np.exp(10 * cosines[lenders]))
    np.testing.assert_allclose(after.vectors[0], [mean, -2 * mean], rtol=1e-5)
    np.testing.assert_allclose(after.dual[0], [3 * mean, -6 * mean], rtol=1e-5)


def test_a_click_on_a_lent_item_is_one_on_its_only_lender(factors: Factors) -> None:
    new, lender = ITEMS - 1, 4
    assert not factors.users(batch_of([(new, 1)])).any()
    lent = factors.impute(nearest(ITEMS, {new: [(lender, 0.7)]}))
    borrowed, own, with_more, plain = lent.users(
        batch_of([(new, 1)], [(lender, 1)], [(9, 0), (new, 1)], [(9, 0)])
    )
    assert own.any()
    np.testing.assert_allclose(borrowed, own, rtol=1e-5)
    assert np.abs(with_more - plain).max() > 1e-3
    assert borrowed @ lent.vectors[new] > 0


def test_items_that_were_only_viewed_borrow_too_and_nobody_elses_history_changes(factors: Factors) -> None:
    viewed = ITEMS - 3
    lent = factors.impute(nearest(ITEMS, {viewed: [(1, 0.9), (2, 0.9)], 5: [(1, 0.9)]}))
    np.testing.assert_allclose(
        lent.vectors[viewed], factors.vectors[[1, 2]].mean(axis=0), rtol=1e-4, atol=1e-6
    )
    others = np.arange(ITEMS) != viewed
    assert np.array_equal(lent.vectors[others], factors.vectors[others])
    histories = batch_of(*([(i, k) for i, k in h if i != viewed] for h in random_histories(20, 20, seed=4)))
    assert np.array_equal(lent.users(histories), factors.users(histories))


def test_imputation_in_blocks_is_that_of_all_rows(factors: Factors, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    near = Neighbours(
        rng.integers(-1, ITEMS, (11, 6)).astype(np.int32), rng.random((11, 6)).astype(np.float32)
    )
    whole = factors.imputed(near, factors.known)
    monkeypatch.setattr(co_purchase, "IMPUTED", 4)
    for found, expected in zip(factors.imputed(near, factors.known), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert expected.any()
