"""The contract of every searcher: FAISS exact and approximate, the index of a device, and Milvus."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial

import numpy as np
import polars as pl
import pytest

from conf.schema import IndexConfig
from features.data.dataset import BoolArray, FloatArray
from ranking.milvus.fields import ITEM_VECTOR
from ranking.milvus.searcher import MilvusIndex
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.index_choice import build_index
from ranking.retrieval.searcher import QueryGroup, VectorSearcher
from tests.ranking.milvus.lite import Lite, loaded, settings
from tests.ranking.retrieval.reference import exact_rows, random_mask
from tests.second_device import second_device
from tests.synthetic import random_units

ITEMS, DIM = 400, 16
VECTORS = random_units(ITEMS, DIM, seed=1)
QUERIES = random_units(5, DIM, seed=2)
KINDS = ["flat", "ivf", "device", "milvus"]
Build = Callable[[FloatArray], VectorSearcher]


@pytest.fixture(params=KINDS)
def build(request: pytest.FixtureRequest) -> Iterator[Build]:
    with ExitStack() as stack:
        if request.param == "flat":
            yield lambda vectors: VectorIndex.build(vectors, IndexConfig(factory="Flat"))
        elif request.param == "ivf":  # all of its lists are probed, so that it must find what there is
            yield lambda vectors: VectorIndex.build(vectors, IndexConfig(factory="IVF8,Flat", nprobe=8))
        elif request.param == "device":
            device = stack.enter_context(second_device())
            yield lambda vectors: build_index(vectors, device=device)
        else:
            server: Lite = request.getfixturevalue("server")
            name = "t" + str(abs(hash(request.node.nodeid)))
            yield lambda vectors: milvus(server, vectors, name, stack)


def milvus(server: Lite, vectors: FloatArray, prefix: str, stack: ExitStack) -> MilvusIndex:
    ids = [f"i{row}" for row in range(len(vectors))]
    frame = pl.DataFrame({"item_id": ids, "item_text": ids})
    collection = loaded(settings(server.uri, prefix=prefix), frame, vectors)
    stack.callback(collection.close)
    rows = {item_id: row for row, item_id in enumerate(ids)}
    return MilvusIndex(collection, ITEM_VECTOR, vectors, lambda found: [rows.get(i) for i in found])


exact = partial(exact_rows, VECTORS)
mask = partial(random_mask, ITEMS)


def test_a_search_returns_the_best_rows_with_their_products(build: Build) -> None:
    rows, scores = build(VECTORS).search(QUERIES, 10)
    assert np.array_equal(rows, exact(QUERIES, 10))
    assert np.allclose(scores, np.take_along_axis(QUERIES @ VECTORS.T, rows, axis=1), atol=1e-5)
    assert rows.dtype == np.int32
    assert scores.dtype == np.float32
    assert rows.shape == scores.shape == (len(QUERIES), 10)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2, 0.02])
def test_a_mask_is_obeyed_and_the_list_is_full(build: Build, share: float) -> None:
    allowed = mask(share)
    rows, scores = build(VECTORS).search(QUERIES, 30, allowed)
    kept = min(30, int(allowed.sum()))
    assert np.array_equal(rows[:, :kept], exact(QUERIES, kept, allowed))
    assert (rows[:, kept:] == -1).all()
    assert np.isneginf(scores[:, kept:]).all()


def test_an_empty_mask_finds_nothing(build: Build) -> None:
    rows, scores = build(VECTORS).search(QUERIES, 5, np.zeros(ITEMS, dtype=np.bool_))
    assert (rows == -1).all()
    assert np.isneginf(scores).all()


def test_more_rows_than_there_are_are_padded(build: Build) -> None:
    rows, scores = build(VECTORS[:40]).search(QUERIES, 50)
    assert np.array_equal(rows[:, :40], exact_rows(VECTORS[:40], QUERIES, 40))
    assert (rows[:, 40:] == -1).all()
    assert np.isneginf(scores[:, 40:]).all()


def test_no_queries_and_no_rows_are_no_error(build: Build) -> None:
    index = build(VECTORS)
    assert index.search(QUERIES[:0], 5)[0].shape == (0, 5)
    assert index.search(QUERIES, 0)[0].shape == (len(QUERIES), 0)


def test_equal_vectors_are_all_found_once(build: Build) -> None:
    vectors = VECTORS.copy()
    vectors[100:110] = vectors[7]
    rows, scores = build(vectors).search(vectors[7:8], 11)
    assert sorted(rows[0].tolist()) == [7, *range(100, 110)]
    assert np.allclose(scores, 1.0, atol=1e-5)


def test_single_precision_is_what_queries_may_be_converted_from(build: Build) -> None:
    wide = np.asfortranarray(QUERIES.astype(np.float32))
    assert np.array_equal(build(VECTORS).search(wide, 10)[0], exact(QUERIES, 10))


def test_groups_have_masks_of_their_own(build: Build) -> None:
    half, few = mask(0.5), mask(0.02, seed=3)
    groups = [
        QueryGroup(np.array([0, 3]), 10, half),
        QueryGroup(np.array([1]), 5, None),
        QueryGroup(np.array([2, 4]), 20, few),
    ]
    found = build(VECTORS).search_groups(QUERIES, groups)
    assert np.array_equal(found[0][0], exact(QUERIES[[0, 3]], 10, half))
    assert np.array_equal(found[1][0], exact(QUERIES[[1]], 5))
    kept = int(few.sum())
    assert np.array_equal(found[2][0][:, :kept], exact(QUERIES[[2, 4]], kept, few))


def test_threads_search_at_a_time(build: Build) -> None:
    index, barrier = build(VECTORS), threading.Barrier(4)
    masks = [None, mask(0.9), mask(0.5), mask(0.02)]

    def work(allowed: BoolArray | None) -> list[bool]:
        barrier.wait(30)
        return [
            np.array_equal(index.search(QUERIES, 8, allowed)[0], exact(QUERIES, 8, allowed)) for _ in range(5)
        ]

    with ThreadPoolExecutor(4) as threads:
        assert all(all(found) for found in threads.map(work, masks))
