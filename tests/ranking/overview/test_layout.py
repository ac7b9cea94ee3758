from __future__ import annotations

import numpy as np
import pytest

from features.data.dataset import FloatArray
from ranking.assembly import pca_units, text_neighbours
from ranking.overview.layout import (
    INTERPOLATED,
    SMALLEST,
    fan_out,
    lay_out,
    nearest_by_vectors,
    project,
    within_square,
)


def clusters(count: int, each: int, dim: int = 16, spread: float = 0.1) -> FloatArray:
    """Return unit vectors around `count` orthogonal centres, one cluster after the other."""
    rng = np.random.default_rng(1)
    vectors = np.repeat(np.eye(dim)[:count], each, axis=0) + spread * rng.normal(size=(count * each, dim))
    unit: FloatArray = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def kept(vectors: FloatArray, positions: FloatArray, k: int = 10) -> float:
    """Return the share of each text's k nearest that are among its k nearest on the map."""
    cosines = vectors @ vectors.T
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(cosines, -2)
    np.fill_diagonal(distances, 9)
    true, shown = np.argsort(-cosines, axis=1)[:, :k], np.argsort(distances, axis=1)[:, :k]
    return float(np.mean([len(set(a) & set(b)) / k for a, b in zip(true, shown, strict=True)]))


@pytest.mark.parametrize("each", [30, -(-INTERPOLATED // 6)])
def test_texts_of_a_kind_lie_together_and_their_order_is_kept_better_than_by_components(each: int) -> None:
    vectors = clusters(6, each)
    near = text_neighbours(pca_units(vectors), 50).ids
    positions = lay_out(vectors, near)
    assert positions.min() >= 0
    assert positions.max() <= 1
    assert np.ptp(positions, axis=0).max() == pytest.approx(1, abs=1e-5)
    own = np.repeat(np.arange(6), each)
    distances = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    np.fill_diagonal(distances, 9)
    assert (own[distances.argmin(axis=1)] == own).mean() > 0.99
    if each == 30:
        assert kept(vectors, positions) > 1.2 * kept(vectors, project(vectors))


@pytest.mark.parametrize("count", [40, INTERPOLATED + 4])
def test_a_layout_does_not_depend_on_threads_or_on_the_run(count: int) -> None:
    vectors = clusters(4, count // 4)
    near = text_neighbours(pca_units(vectors), 20).ids
    first = lay_out(vectors, near)
    assert np.array_equal(first, lay_out(vectors, near))
    assert np.array_equal(first, lay_out(vectors, near, threads=2))


@pytest.mark.parametrize("count", [0, 1, 2, 3, SMALLEST - 1, SMALLEST, 12])
def test_a_catalogue_of_any_size_has_a_map(count: int) -> None:
    vectors = clusters(4, 3)[:count]
    near = np.array([[j for j in range(count) if j != i] for i in range(count)], dtype=np.int32)
    positions = lay_out(vectors, near.reshape(count, max(count - 1, 0)))
    assert positions.shape == (count, 2)
    assert np.isfinite(positions).all()


def test_equal_vectors_and_missing_neighbours_leave_a_finite_map() -> None:
    vectors = np.repeat(clusters(2, 1), [30, 10], axis=0)
    near = np.full((40, 5), -1, dtype=np.int32)
    near[:20, 0] = (np.arange(20) + 1) % 20
    assert np.isfinite(lay_out(vectors, near)).all()
    assert np.array_equal(lay_out(vectors[:30], near[:30]), np.full((30, 2), 0.5)), "all in one place"


def test_neighbours_are_ordered_by_the_vectors_and_gaps_are_filled() -> None:
    vectors = np.array([[1, 0], [0.6, 0.8], [0.8, 0.6], [0, 1]], dtype=np.float32)
    near = np.array([[3, 1, 2], [0, -1, -1], [-1, -1, -1], [2, 1, 0]], dtype=np.int32)
    rows, cosines = nearest_by_vectors(vectors, near, 2)
    assert rows.tolist() == [[2, 1], [0, 0], [3, 3], [1, 2]]
    assert cosines == pytest.approx(np.array([[0.8, 0.6], [0.6, 0.6], [-1, -1], [0.8, 0.6]]))


def test_principal_components_put_the_largest_variance_on_the_first_axis() -> None:
    vectors = np.array([[4, 0, 1], [-4, 0, 1], [0, 1, 1], [0, -1, 1]], dtype=np.float32)
    # Centred coordinates are 4, -4, 0, 0 and 0, 0, 1, -1; the square is 8 wide.
    expected = [[1, 0.5], [0, 0.5], [0.5, 0.625], [0.5, 0.375]]
    assert project(vectors) == pytest.approx(np.array(expected), abs=1e-6)


def test_items_of_one_text_fan_out_around_it() -> None:
    positions = np.array([[0, 0], [1, 1]], dtype=np.float32)
    single = fan_out(positions, np.array([1, 0], dtype=np.int32))
    assert single.tolist() == [[1, 1], [0, 0]], "one item each stays where its text is"
    items = fan_out(positions, np.array([0, 1, 1, 1, 1], dtype=np.int32))
    distances = np.linalg.norm(items[2:] - items[1], axis=1)
    assert len(np.unique(items, axis=0)) == 5
    # Number n lies at 0.3 / sqrt(2 texts) * sqrt(n) from the first one, before all is scaled into the square.
    assert distances / distances[0] == pytest.approx(np.sqrt([1, 2, 3]), rel=1e-5)
    assert np.linalg.norm(items[0] - items[1]) / distances[0] == pytest.approx(2 / 0.3, rel=1e-5)


def test_positions_are_centred_without_distortion() -> None:
    assert within_square(np.array([[0.0, 0], [10, 5]])).tolist() == [[0, 0.25], [1, 0.75]]
    assert within_square(np.array([[3.0, 3]])).tolist() == [[0.5, 0.5]]
