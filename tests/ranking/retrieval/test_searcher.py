"""What every searcher of a whole catalogue does, on the CPU and on a second device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest

from features.data.dataset import FloatArray
from ranking.retrieval.device_index import DeviceIndex
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.index_choice import CatalogueIndex, build_index
from ranking.retrieval.searcher import QueryGroup
from tests.ranking.retrieval.reference import exact_rows, random_mask
from tests.second_device import second_device
from tests.synthetic import random_units

ITEMS, DIM = 400, 16
VECTORS = random_units(ITEMS, DIM, seed=1)
QUERIES = random_units(7, DIM, seed=2)
Build = Callable[[FloatArray], CatalogueIndex]


@pytest.fixture(params=["cpu", "device"])
def build(request: pytest.FixtureRequest) -> Iterator[Build]:
    if request.param == "cpu":
        yield build_index
        return
    with second_device() as device:

        def on_device(vectors: FloatArray) -> CatalogueIndex:
            return build_index(vectors, device=device)

        yield on_device


exact = partial(exact_rows, VECTORS)
mask = partial(random_mask, ITEMS)


def test_the_device_decides_which_it_is() -> None:
    assert isinstance(build_index(VECTORS), VectorIndex)
    with second_device() as device:
        assert isinstance(build_index(VECTORS, device=device), DeviceIndex)


def test_the_default_index_is_exact(build: Build) -> None:
    index = build(VECTORS)
    rows, scores = index.search(QUERIES, 10)
    assert np.array_equal(rows, exact(QUERIES, 10))
    np.testing.assert_allclose(scores, np.take_along_axis(QUERIES @ VECTORS.T, rows, axis=1), atol=1e-5)
    assert rows.dtype == np.int32
    assert scores.dtype == np.float32
    assert len(index) == ITEMS


@pytest.mark.parametrize(
    "share", [0.5, 0.06, 0.04, 0.01], ids=["wide", "just wide", "selective", "very selective"]
)
def test_a_filter_holds_inside_the_search(build: Build, share: float) -> None:
    allowed = mask(share)
    rows, scores = build(VECTORS).search(QUERIES, 10, allowed)
    assert np.array_equal(rows, exact(QUERIES, 10, allowed))
    assert (np.isfinite(scores) == (rows >= 0)).all()


def test_a_filter_that_allows_nothing_finds_nothing(build: Build) -> None:
    rows, scores = build(VECTORS).search(QUERIES, 3, np.zeros(ITEMS, dtype=np.bool_))
    assert (rows == -1).all()
    assert (scores == -np.inf).all()
    assert rows.shape == (7, 3)


def test_a_list_longer_than_the_catalogue_is_padded(build: Build) -> None:
    index = build(VECTORS)
    rows, scores = index.search(QUERIES, ITEMS + 5)
    assert rows.shape == scores.shape == (7, ITEMS + 5)
    assert (np.sort(rows[:, :ITEMS], axis=1) == np.arange(ITEMS)).all()
    assert (rows[:, ITEMS:] == -1).all()
    assert (scores[:, ITEMS:] == -np.inf).all()
    some = mask(0.5)
    rows, scores = index.search(QUERIES, ITEMS + 5, some)
    assert (np.sort(rows[:, :200], axis=1) == np.flatnonzero(some)).all()
    assert (rows[:, 200:] == -1).all()
    assert index.search(QUERIES, 0)[0].shape == (7, 0)
    assert index.search(QUERIES[:0], 4)[0].shape == (0, 4)


def test_an_empty_catalogue_finds_nothing(build: Build) -> None:
    empty = build(VECTORS[:0])
    assert (empty.search(QUERIES, 4)[0] == -1).all()
    assert (empty.search(QUERIES, 4, np.zeros(0, dtype=np.bool_))[0] == -1).all()


def test_of_equals_the_first_rows_are_found(build: Build) -> None:
    """In which order is not the same: FAISS gives some of them from the last to the first."""
    index = build(np.tile(VECTORS[:4], (100, 1)))
    assert np.sort(index.search(VECTORS[:1], 5)[0]).tolist() == [[0, 4, 8, 12, 16]]
    odd = np.arange(ITEMS) % 8 > 0
    assert np.sort(index.search(VECTORS[:1], 3, odd)[0]).tolist() == [[4, 12, 20]]


def test_groups_with_filters_of_their_own_find_what_each_finds_alone(build: Build) -> None:
    index, nothing = build(VECTORS), np.zeros(ITEMS, dtype=np.bool_)
    groups = [
        QueryGroup(np.array([5, 0]), 10, mask(0.5)),
        QueryGroup(np.array([3]), 4, None),
        QueryGroup(np.array([6, 2]), 7, mask(0.02)),
        QueryGroup(np.array([1]), 3, nothing),
    ]
    found = index.search_groups(QUERIES, groups)
    assert len(found) == 4
    for group, (rows, scores) in zip(groups, found, strict=True):
        assert np.array_equal(rows, exact(QUERIES[group.members], group.k, group.allowed))
        assert scores.shape == rows.shape
        assert (np.isfinite(scores) == (rows >= 0)).all()
    assert index.search_groups(QUERIES, []) == []
