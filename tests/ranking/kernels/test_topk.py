from __future__ import annotations

import numpy as np
import pytest

from features.data.dataset import BoolArray, IntArray, LongArray
from ranking.kernels.topk import NeighbourWeights, best_products, best_sums

ALL = np.full(9, -1, dtype=np.int64), np.zeros((0, 0), dtype=np.uint8)
"""Which mask each of nine queries has, and the masks: none."""
NONE = np.zeros(0, dtype=np.int64)


def packed(masks: list[BoolArray]) -> np.ndarray:
    return np.stack([np.packbits(mask, bitorder="little") for mask in masks])


def table(values: list[list[float]]) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def rows_of(values: list[list[int]]) -> IntArray:
    return np.array(values, dtype=np.int32)


def test_sums_by_hand() -> None:
    ids, weights = rows_of([[1, -1], [0, 2], [2, 9]]), table([[1, 0], [0.5, 0.5], [0.25, 1]])
    # Query 0: item 0, then item 1; query 1 has no events; query 2: item 2.
    items, offsets = np.array([0, 1, 2], dtype=np.int32), np.array([0, 2, 2, 3])

    def found(
        k: int, which: LongArray, masks: np.ndarray, excluded: LongArray, recent: int = 5
    ) -> list[list[int]]:
        best = best_sums(
            NeighbourWeights(items, offsets, recent, 1.0, ids, weights), k, which, masks, excluded, 10
        )
        assert best.dtype == np.int32
        rows: list[list[int]] = best.tolist()
        return rows

    which, masks = ALL
    assert found(2, which[:3], masks, NONE) == [[0, 1], [-1, -1], [9, 2]], (
        "item 0 gives half of 1, as much as 1"
    )
    assert found(4, which[:3], masks, NONE) == [[0, 1, 2, -1], [-1] * 4, [9, 2, -1, -1]]
    assert found(4, which[:3], masks, NONE, recent=1) == [[0, 2, -1, -1], [-1] * 4, [9, 2, -1, -1]]
    assert found(3, which[:3], masks, np.array([1, 22])) == [[0, 2, -1], [-1] * 3, [9, -1, -1]]
    without_nine = np.arange(10) != 9
    some = np.array([-1, 0, 0])
    assert found(3, some, packed([without_nine]), np.array([0])) == [[1, 2, -1], [-1] * 3, [2, -1, -1]]


@pytest.mark.parametrize("seed", range(5))
def test_sums_are_those_of_a_dictionary(seed: int) -> None:
    rng = np.random.default_rng(seed)
    catalogue, wide, k, recent, scale = 50, 7, 12, 6, 3.0
    ids = rng.integers(-1, catalogue, size=(catalogue, wide)).astype(np.int32)
    weights = rng.random((catalogue, wide)).astype(np.float32)
    sizes = rng.integers(0, 12, size=9)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    items = rng.integers(0, catalogue, size=int(sizes.sum())).astype(np.int32)
    masks = [rng.random(catalogue) < 0.5, rng.random(catalogue) < 0.9]
    which = rng.integers(-1, 2, size=9)
    excluded = np.unique(rng.integers(0, 9 * catalogue, size=60))
    best = best_sums(
        NeighbourWeights(items, offsets, recent, scale, ids, weights),
        k,
        which,
        packed(masks),
        excluded,
        catalogue,
    )
    for query in range(9):
        sums: dict[int, float] = {}
        own = items[offsets[query] : offsets[query + 1]][::-1][:recent]
        for age, item in enumerate(own):
            for row, weight in zip(ids[item].tolist(), weights[item].tolist(), strict=True):
                if (
                    row >= 0
                    and (which[query] < 0 or masks[which[query]][row])
                    and query * catalogue + row not in excluded
                ):
                    sums[row] = sums.get(row, 0.0) + weight / (1 + age / scale)
        expected = sorted(sums, key=lambda row: (-sums[row], row))[:k]
        assert best[query].tolist() == expected + [-1] * (k - len(expected))


def test_products_are_in_order_and_equal_ones_by_row() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 40)).astype(np.float32)
    vectors[7] = vectors[200]
    vectors[9], vectors[10] = 0.0, -0.0
    queries = rng.normal(size=(4, 40)).astype(np.float32)
    rows = np.stack([rng.permutation(300)[:120] for _ in range(4)])
    rows[0, :4] = [200, 7, 10, 9]
    rows[0, 4:] = np.setdiff1d(rng.permutation(300), [200, 7, 10, 9])[:116]
    rows[1, 50:] = -1
    rows[2] = -1
    for k in (5, 120, 130):
        best, products = best_products(queries, vectors, rows, k)
        assert best.shape == products.shape == (4, k)
        assert best.dtype == np.int32
        assert products.dtype == np.float32
        for query in range(4):
            real = np.sort(rows[query][rows[query] >= 0])
            exact = vectors[real].astype(np.float64) @ queries[query]
            expected = real[np.argsort(-np.round(exact, 5), kind="stable")][:k]
            count = len(expected)
            assert best[query, :count].tolist() == expected.tolist()
            assert (best[query, count:] == -1).all()
            assert (products[query, count:] == -np.inf).all()
            np.testing.assert_allclose(
                products[query, :count], vectors[expected] @ queries[query], rtol=1e-4, atol=1e-5
            )
    full = best_products(queries[:1], vectors, rows[:1], 120)[0][0].tolist()
    assert full.index(7) + 1 == full.index(200)
    assert full.index(9) + 1 == full.index(10)


def test_a_query_alone_has_the_products_that_it_has_among_others() -> None:
    rng = np.random.default_rng(1)
    vectors, queries = (
        rng.normal(size=(500, 33)).astype(np.float32),
        rng.normal(size=(6, 33)).astype(np.float32),
    )
    rows = np.stack([rng.permutation(500)[:99] for _ in range(6)])
    together = best_products(queries, vectors, rows, 30)
    for query in range(6):
        alone = best_products(queries[query : query + 1], vectors, rows[query : query + 1, ::-1].copy(), 30)
        assert np.array_equal(alone[0][0], together[0][query])
        assert np.array_equal(alone[1][0], together[1][query]), "wherever a row stands"
