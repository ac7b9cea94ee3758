from __future__ import annotations

import logging
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
import torch

import ranking.retrieval.faiss_index
from conf.errors import InputError
from conf.schema import IndexConfig
from features.data.dataset import BoolArray, FloatArray
from ranking.retrieval.exact import topk_columns
from ranking.retrieval.faiss_index import FLAT_LIMIT, VectorIndex, default_factory
from tests.ranking.retrieval.reference import exact_rows, random_mask
from tests.synthetic import random_units

ITEMS, DIM = 400, 16
VECTORS = random_units(ITEMS, DIM, seed=1)
QUERIES = random_units(7, DIM, seed=2)


def build(factory: str | None = None, nprobe: int = 16) -> VectorIndex:
    return VectorIndex.build(VECTORS, IndexConfig(factory=factory, nprobe=nprobe))


exact = partial(exact_rows, VECTORS)
mask = partial(random_mask, ITEMS)


def test_small_catalogues_are_searched_exactly_and_large_ones_in_lists() -> None:
    assert default_factory(FLAT_LIMIT // 128 - 1, 128) == "Flat"
    assert default_factory(FLAT_LIMIT // 128, 128) == "IVF1024,PQ64x4fs"
    assert default_factory(1_000_000, 256) == "IVF4096,PQ128x4fs"
    assert default_factory(1_000_000, 127) == "IVF4096,SQ8", "two numbers share a code"


def test_an_inverted_file_looks_at_about_as_many_items_however_large_it_is() -> None:
    index = build("IVF8,Flat", nprobe=0)
    assert index.nprobe == 8  # of a small catalogue everything
    vectors = np.random.default_rng(0).normal(size=(100_000, 80)).astype(np.float32)
    assert VectorIndex.build(vectors, IndexConfig(factory="IVF64,SQ8")).nprobe == 32


def test_coarse_vectors_are_put_in_order_by_the_vectors_themselves() -> None:
    """A quarter of what is fetched is kept; with enough lists nearly all of the best, with exact scores."""
    rng = np.random.default_rng(3)
    vectors = rng.normal(size=(4000, 32)).astype(np.float32)
    vectors[7] = vectors[3000]
    queries = np.concatenate([rng.normal(size=(20, 32)).astype(np.float32), vectors[7:8]])
    config = IndexConfig(factory="IVF16,PQ16x4fs", nprobe=16)
    index = VectorIndex.build(vectors, config)
    allowed = rng.random(4000) < 0.5
    for mask in (None, allowed):
        rows, scores = index.search(queries, 50, mask)
        exact = queries @ vectors.T
        np.testing.assert_allclose(scores, np.take_along_axis(exact, rows.astype(np.int64), 1), rtol=1e-4)
        assert (np.diff(scores, axis=1) <= 0).all()
        if mask is not None:
            assert mask[rows].all()
            exact[:, ~mask] = -np.inf
        best = np.argsort(-exact, axis=1)[:, :50]
        found = [len(set(a) & set(b)) / 50 for a, b in zip(rows.tolist(), best.tolist(), strict=True)]
        assert np.mean(found) > 0.85
    assert index.search(queries[20:], 2)[0].tolist() == [[7, 3000]], "equals come in order of their rows"


def test_the_best_places_are_those_of_a_stable_sort() -> None:
    rng = np.random.default_rng(0)
    for width, k in ((5, 5), (100, 7), (1000, 20)):
        scores = rng.integers(0, 30, size=(6, width)).astype(np.float32)  # full of ties
        scores[0] = 1.0
        scores[1, ::2] = -np.inf
        expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        assert np.array_equal(topk_columns(scores, k), expected)


@pytest.mark.parametrize("factory", ["IVF8,Flat", "RR16,IVF8,Flat", "IVF8,Flat,RFlat"])
def test_all_lists_probed_find_what_exact_search_finds(factory: str) -> None:
    index = build(factory, nprobe=8)
    assert np.array_equal(index.search(QUERIES, 10)[0], exact(QUERIES, 10))
    for share in (0.5, 0.02):
        allowed = mask(share)
        assert np.array_equal(index.search(QUERIES, 8, allowed)[0], exact(QUERIES, 8, allowed))


@pytest.mark.parametrize("factory", ["IVF8,Flat", "RR16,IVF8,Flat"])
def test_nprobe_is_passed_per_call_and_changes_nothing_shared(factory: str) -> None:
    one, all_lists = build(factory, nprobe=1), build(factory, nprobe=8)

    def recall(index: VectorIndex) -> float:
        found = index.search(QUERIES, 20)[0]
        return float(
            np.mean([len(set(f) & set(e)) / 20 for f, e in zip(found, exact(QUERIES, 20), strict=True)])
        )

    assert recall(one) < 0.9
    assert recall(all_lists) == 1.0
    inverted = faiss.try_extract_index_ivf(all_lists.cpu)
    assert inverted is not None, "what other threads see"
    assert inverted.nprobe == 1, "what other threads see"


def test_the_fewer_items_are_allowed_the_more_lists_are_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ranking.retrieval.faiss_index.EXACT_BUDGET", 0
    )  # all too many to be compared one by one
    queries = random_units(100, DIM, seed=3)

    def recall(share: float) -> float:
        index, allowed = build("IVF8,Flat", nprobe=1), mask(share)
        found, best = index.search(queries, 2, allowed)[0], exact(queries, 2, allowed)
        return float(np.mean([len(set(f) & set(e)) / 2 for f, e in zip(found, best, strict=True)]))

    assert recall(0.5) < 0.8
    assert recall(0.04) > 0.9  # six of eight lists
    monkeypatch.setattr("ranking.retrieval.faiss_index.MAX_PROBE_FACTOR", 1)
    assert recall(0.04) < 0.8


def test_a_filter_whose_rows_lie_in_other_lists_still_fills_the_list() -> None:
    index = build("IVF8,Flat", nprobe=1)
    quantizer: Any = faiss.try_extract_index_ivf(index.cpu).quantizer  # type: ignore[union-attr]
    lists = quantizer.assign(VECTORS, 1).ravel()
    own = quantizer.assign(QUERIES[:1], 1).ravel()[0]
    allowed: BoolArray = lists != own
    assert allowed.mean() > 0.05
    assert np.array_equal(index.search(QUERIES[:1], 10, allowed)[0], exact(QUERIES[:1], 10, allowed))


@pytest.mark.parametrize(
    "factory", ["Flat", "IVF8,Flat", "PCA8,IVF8,Flat", "HNSW16", "SQ8", "PQ4x4", "PQ4x4,RFlat"]
)
@pytest.mark.parametrize("share", [0.5, 0.01])
def test_whatever_the_index_a_filtered_list_is_full_and_allowed(factory: str, share: float) -> None:
    allowed = mask(share)
    rows, scores = build(factory).search(QUERIES, 4, allowed)
    assert (rows >= 0).all()
    assert allowed[rows].all()
    assert all(len(set(row)) == 4 for row in rows.tolist())
    assert (np.diff(scores, axis=1) <= 0).all()


def test_an_index_that_cannot_filter_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        build("PQ4x4")
    assert "IndexPQ cannot filter inside its search; filtered searches are exact" in caplog.text
    caplog.clear()
    build("IVF8,Flat")
    assert caplog.text == ""


@pytest.mark.parametrize("factory", ["Flatt", "IVF8", "IDMap,Flat", "IVF4000,Flat", ""])
def test_a_bad_factory_is_one_readable_line(factory: str) -> None:
    if factory == "":
        assert type(build("").cpu).__name__ == "IndexFlat", "empty means the default"
        return
    with pytest.raises(InputError) as caught:
        build(factory)
    assert str(caught.value).startswith(f"index.factory: FAISS rejects '{factory}' (")
    assert "\n" not in str(caught.value)


class Forgetful:
    """An index that takes a selector and answers as if there were none, as FAISS's do on a GPU."""

    def __init__(self, index: Any) -> None:
        self.index = index
        self.searches = 0

    def search(self, queries: FloatArray, k: int, params: Any = None) -> Any:
        self.searches += 1
        probes = getattr(params, "nprobe", 0)
        kept = ranking.retrieval.faiss_index._FAISS.SearchParametersIVF(nprobe=probes) if probes else None
        return self.index.search(queries, k, params=kept)


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> list[Forgetful]:
    """What an index becomes on a GPU."""
    made: list[Forgetful] = []

    def to_gpu(resources: object, number: int, index: Any) -> Forgetful:
        assert number == 1
        made.append(Forgetful(index))
        return made[-1]

    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: None, raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", to_gpu, raising=False)
    return made


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat"])
def test_what_forgets_a_filter_is_found_out_and_not_trusted_with_one(
    forgetful: list[Forgetful], caplog: pytest.LogCaptureFixture, factory: str
) -> None:
    index = VectorIndex.build(VECTORS, IndexConfig(factory, nprobe=8), torch.device("cuda", 1))
    [fake] = forgetful
    assert "Forgetful cannot filter inside its search; filtered searches run on the CPU" in caplog.text
    before = fake.searches
    assert np.array_equal(index.search(QUERIES, 10)[0], exact(QUERIES, 10))
    assert fake.searches == before + 1
    for share in (0.5, 0.02):
        allowed = mask(share)
        assert np.array_equal(index.search(QUERIES, 8, allowed)[0], exact(QUERIES, 8, allowed))
    assert fake.searches == before + 1


def test_more_rows_than_a_gpu_finds_are_found_on_the_cpu(
    forgetful: list[Forgetful], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ranking.retrieval.faiss_index.GPU_MAX_K", 20)
    index = VectorIndex.build(VECTORS, IndexConfig("Flat"), torch.device("cuda", 1))
    before = forgetful[0].searches
    assert np.array_equal(index.search(QUERIES, 21)[0], exact(QUERIES, 21))
    assert forgetful[0].searches == before
    index.search(QUERIES, 20)
    assert forgetful[0].searches == before + 1


def test_an_index_that_faiss_cannot_search_on_a_gpu_is_searched_on_the_cpu(
    forgetful: list[Forgetful], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("Error in void GpuIndexIVF::search\nnprobe > 2048")

    monkeypatch.setattr(Forgetful, "search", refuse)
    index = VectorIndex.build(VECTORS, IndexConfig("IVF8,Flat", nprobe=8), torch.device("cuda", 1))
    assert caplog.messages == ["index.factory is searched on the CPU: FAISS cannot on a GPU (nprobe > 2048)"]
    assert np.array_equal(index.search(QUERIES, 8)[0], exact(QUERIES, 8))


def test_where_nothing_obeys_a_filter_filtered_searches_are_exact(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(VectorIndex, "_supports_filters", lambda self, searcher: False)
    index, allowed = build("IVF8,Flat", nprobe=1), mask(0.5)
    assert "IndexIVFFlat cannot filter inside its search; filtered searches are exact" in caplog.text
    assert np.array_equal(index.search(QUERIES, 8, allowed)[0], exact(QUERIES, 8, allowed))


def test_without_faiss_for_a_gpu_a_factory_is_searched_on_the_cpu(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    index = VectorIndex.build(VECTORS, IndexConfig("IVF8,Flat", nprobe=8), torch.device("cuda"))
    assert caplog.messages == ["index.factory is searched on the CPU: this build of FAISS sees no GPU"]
    assert np.array_equal(index.search(QUERIES, 8)[0], exact(QUERIES, 8))


@pytest.mark.parametrize("factory", [None, "IVF8,Flat", "PCA8,IVF8,SQ8", "HNSW16"])
def test_a_saved_index_answers_the_same(tmp_path: Path, factory: str | None) -> None:
    index = build(factory, nprobe=3)
    index.save(tmp_path / "index.faiss")
    loaded = VectorIndex.load(tmp_path / "index.faiss", VECTORS, IndexConfig(nprobe=3))
    assert len(loaded) == len(index) == ITEMS
    for allowed in (None, mask(0.5), mask(0.01)):
        before, after = index.search(QUERIES, 10, allowed), loaded.search(QUERIES, 10, allowed)
        assert np.array_equal(before[0], after[0])
        assert np.array_equal(before[1], after[1])


def test_a_file_that_is_no_index_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "index.faiss").write_bytes(b"nonsense")
    with pytest.raises(InputError, match="index.faiss: not a FAISS index"):
        VectorIndex.load(tmp_path / "index.faiss", VECTORS, IndexConfig())
