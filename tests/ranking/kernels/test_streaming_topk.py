from __future__ import annotations

import numpy as np
import pytest

from features.data.dataset import FloatArray, IntArray
from ranking.kernels import streaming_topk
from ranking.kernels.streaming_topk import rank_vectors, top_columns


def top_k(scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Sort stably, and cut."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    values = np.take_along_axis(scores, order, axis=1)
    short = ((0, 0), (0, k - order.shape[1]))
    columns = np.where(np.isneginf(values), -1, order).astype(np.int32)
    return np.pad(columns, short, constant_values=-1), np.pad(values, short, constant_values=-np.inf)


@pytest.mark.parametrize("k", [1, 2, 7, 10, 50])
@pytest.mark.parametrize("distinct", [2, 5, 1000])
def test_the_best_columns_are_those_of_a_stable_sort(k: int, distinct: int) -> None:
    rng = np.random.default_rng(k)
    scores = rng.integers(distinct, size=(40, 30)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.2] = -np.inf
    columns, values = top_columns(scores, k)
    expected = top_k(scores, k)
    np.testing.assert_array_equal(columns, expected[0])
    np.testing.assert_array_equal(values, expected[1])


def test_a_list_by_hand() -> None:
    columns, values = top_columns(np.array([[1.0, 3.0, 3.0, -np.inf]], dtype=np.float32), 4)
    np.testing.assert_array_equal(columns, [[1, 2, 0, -1]])
    np.testing.assert_array_equal(values, [[3.0, 3.0, 1.0, -np.inf]])


@pytest.mark.parametrize("tile", [(3, 4), (8, 5), (512, 16_384)])
def test_tiles_do_not_matter_and_seen_items_are_left_out(
    tile: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming_topk, "TILE", tile)
    rng = np.random.default_rng(1)
    # Whole numbers: products are exact, and there are ties.
    users, items = (rng.integers(-2, 3, size=(n, 3)).astype(np.float32) for n in (17, 23))
    sizes = rng.integers(0, 6, size=17)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    seen = rng.integers(23, size=offsets[-1]).astype(np.int32)
    scores = users @ items.T
    scores[np.repeat(np.arange(17), sizes), seen] = -np.inf
    columns, values = rank_vectors(users, items, 20, (offsets, seen))
    expected = top_k(scores, 20)
    np.testing.assert_array_equal(columns, expected[0])
    np.testing.assert_array_equal(values, expected[1])
    np.testing.assert_array_equal(rank_vectors(users, items, 5)[0], top_k(users @ items.T, 5)[0])


def test_no_users_and_no_items() -> None:
    nothing = np.zeros((0, 3), dtype=np.float32)
    some = np.ones((2, 3), dtype=np.float32)
    assert rank_vectors(nothing, some, 4)[0].shape == (0, 4)
    np.testing.assert_array_equal(rank_vectors(some, nothing, 2)[0], [[-1, -1], [-1, -1]])


@pytest.mark.parametrize("shift", [-3.0, 0.0, 3.0])
def test_long_rows_of_any_sign_with_ties_and_zeros_of_both_signs(shift: float) -> None:
    rng = np.random.default_rng(2)
    scores = (rng.standard_normal((9, 1000)).round(2) + shift).astype(np.float32)
    scores[:, ::7] = 0.0
    scores[:, ::11] = -0.0
    scores[:, ::13] = -np.inf
    columns, values = top_columns(scores, 40)
    expected = top_k(scores, 40)
    np.testing.assert_array_equal(columns, expected[0])
    np.testing.assert_array_equal(values, expected[1])


def test_a_nan_is_not_listed_and_hides_nothing() -> None:
    scores = np.tile(np.arange(200, dtype=np.float32), (2, 1))
    scores[0, [3, 70, 199]] = np.nan
    scores[1, [3, 70, 199]] = -np.float32(np.nan)
    columns, _ = top_columns(scores, 3)
    np.testing.assert_array_equal(columns, [[198, 197, 196]] * 2)
