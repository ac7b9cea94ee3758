"""Searches on a GPU: exact, filters inside, and FAISS's build for it found out; needs one."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch

from benchmarks.search import filters, found_of, generated, groups_of
from conf.schema import IndexConfig
from ranking.retrieval.device_index import DeviceIndex
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.index_choice import build_index

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
GPU = torch.device("cuda", 0)
ITEMS, DIM, K = 100_000, 128, 200


@pytest.fixture(scope="module")
def vectors() -> tuple[np.ndarray, np.ndarray]:
    return generated(ITEMS, DIM, 64)


def test_a_hundred_thousand_items_are_searched_exactly_with_and_without_filters(
    vectors: tuple[np.ndarray, np.ndarray],
) -> None:
    items, queries = vectors
    index, flat = build_index(items, device=GPU), VectorIndex.build(items, IndexConfig("Flat"))
    assert isinstance(index, DeviceIndex)
    groups = groups_of(len(queries), K, filters(ITEMS))
    mixed = zip(
        groups, index.search_groups(queries, groups), flat.search_groups(queries, groups), strict=True
    )
    for group, (rows, scores), (best, wanted) in mixed:
        assert found_of(queries[group.members], items, rows, best, group.allowed)[1] == 1.0
        np.testing.assert_allclose(scores, wanted, atol=1e-5)
    rows, best = index.search(queries, K)[0], flat.search(queries, K)[0]
    assert found_of(queries, items, rows, best, None)[1] == 1.0


def test_what_half_precision_cannot_tell_apart_is_compared_again() -> None:
    order = np.random.default_rng(0).permutation(1000)
    items = np.zeros((5000, 32), dtype=np.float32)
    items[:1000, 0] = 0.5 + 1e-5 * order
    items[1000:, 1] = 0.3
    query = np.eye(1, 32, dtype=np.float32)
    index = DeviceIndex(items, GPU)
    for scale in (1.0, 1e6, 1e-6):
        assert index.search(np.float32(scale) * query, 40)[0][0].tolist() == np.argsort(-order)[:40].tolist()
    equal = np.tile(items[:1], (5000, 1))
    assert DeviceIndex(equal, GPU).search(query, 40)[0].tolist() == [list(range(40))]


def test_rows_are_overwritten_and_appended_there(vectors: tuple[np.ndarray, np.ndarray]) -> None:
    items, queries = vectors
    index = DeviceIndex(items, GPU, room=2)
    index.put(np.array([7, ITEMS], dtype=np.int32), np.stack([queries[0], 2.0 * queries[1]]))
    state = index.state(ITEMS + 1)
    assert state.search(queries[:1], 1)[0].tolist() == [[7]]
    assert state.search(queries[1:2], 1)[0].tolist() == [[ITEMS]]
    hidden = np.ones(ITEMS + 1, dtype=np.bool_)
    hidden[[7, ITEMS]] = False
    rows = index.state(ITEMS + 1, hidden).search(queries[:2], 50)[0]
    assert not np.isin(rows, [7, ITEMS]).any()


@pytest.mark.skipif(not hasattr(faiss, "StandardGpuResources"), reason="FAISS is built for a CPU")
@pytest.mark.parametrize("factory", ["Flat", "IVF64,Flat"])
def test_what_faiss_does_with_a_filter_on_a_gpu_is_found_out(
    vectors: tuple[np.ndarray, np.ndarray], factory: str
) -> None:
    """Whether its build obeys or not, no forbidden item comes back."""
    items, queries = vectors[0][:20_000], vectors[1]
    index = VectorIndex.build(items, IndexConfig(factory, nprobe=64), GPU)
    assert index.searcher is not index.cpu, "without a filter the GPU searches"
    flat = VectorIndex.build(items, IndexConfig("Flat"))
    rows, best = index.search(queries, 50)[0], flat.search(queries, 50)[0]
    assert found_of(queries, items, rows, best, None)[1] == 1.0
    for share in (0.5, 0.01):
        allowed = np.random.default_rng(0).random(len(items)) < share
        rows, best = index.search(queries, 50, allowed)[0], flat.search(queries, 50, allowed)[0]
        assert found_of(queries, items, rows, best, allowed)[1] == 1.0
