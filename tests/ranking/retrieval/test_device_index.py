"""The searcher of a GPU, on a second device: exact whatever half precision rounds away."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
import torch

from features.data.dataset import FloatArray, IntArray
from ranking.retrieval import device_index as module
from ranking.retrieval.device_index import DeviceIndex, disallowed_rows, fits
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.index_choice import build_index
from ranking.retrieval.searcher import QueryGroup
from tests.second_device import DeviceTensor, no_host_copies, second_device
from tests.synthetic import random_units

ITEMS, DIM, K = 3000, 32, 40
UNITS = random_units(ITEMS, DIM, seed=1)
QUERIES = random_units(9, DIM, seed=2)


@pytest.fixture
def device() -> Iterator[torch.device]:
    with second_device() as found:
        yield found


class Counted:
    """Counts the queries that were compared in single precision."""

    def __init__(self, index: DeviceIndex, monkeypatch: pytest.MonkeyPatch) -> None:
        self.queries = 0
        original = index._full_pass

        def counting(queries: torch.Tensor, *rest: object) -> torch.Tensor:
            self.queries += len(queries)
            return original(queries, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(index, "_full_pass", counting)


def products(queries: FloatArray, vectors: FloatArray) -> np.ndarray:
    return queries.astype(np.float64) @ vectors.astype(np.float64).T


def assert_exact(found: IntArray, queries: FloatArray, vectors: FloatArray, k: int) -> None:
    """No row that was left out is better, by more than single precision, than any that was found."""
    truth = products(queries, vectors)
    slack = 1e-6 * np.linalg.norm(queries, axis=1) * np.linalg.norm(vectors, axis=1).max()
    for row, scores, tolerance in zip(found, truth, slack, strict=True):
        assert len(set(row.tolist())) == k
        chosen = scores[row]
        assert (np.diff(chosen) <= tolerance).all()
        assert np.delete(scores, row).max(initial=-np.inf) <= chosen.min() + tolerance


def test_usual_vectors_are_searched_once_in_half_precision(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = DeviceIndex(UNITS, device)
    counted = Counted(index, monkeypatch)
    rows, scores = index.search(QUERIES, K)
    truth = products(QUERIES, UNITS)
    assert np.array_equal(rows, np.argsort(-truth, axis=1, kind="stable")[:, :K])
    np.testing.assert_allclose(scores, np.take_along_axis(truth, rows.astype(np.int64), axis=1), atol=1e-6)
    assert counted.queries == 0


def test_differences_too_small_for_half_precision_are_told_apart(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 1,000 items whose products differ by a hundredth of what half precision can tell, the best 40."""
    vectors = 0.1 * UNITS
    order = np.random.default_rng(0).permutation(1000)
    vectors[:1000] = 0.0
    vectors[:1000, 0] = 0.5 + 1e-5 * order
    query = np.zeros((2, DIM), dtype=np.float32)
    query[0, 0] = query[1, 1] = 1.0
    index = DeviceIndex(vectors, device)
    counted = Counted(index, monkeypatch)
    rows, _ = index.search(query, K)
    assert rows[0].tolist() == np.argsort(-order)[:K].tolist()
    assert_exact(rows, query, vectors, K)
    assert counted.queries == 1, "the other query's items lie apart"


def test_of_many_equals_the_first_rows_are_found(device: torch.device) -> None:
    vectors = UNITS.copy()
    equal = np.sort(np.random.default_rng(3).permutation(ITEMS)[:500])
    vectors[equal] = QUERIES[0]
    rows, scores = DeviceIndex(vectors, device).search(QUERIES[:1], K)
    assert rows[0].tolist() == equal[:K].tolist()
    np.testing.assert_allclose(scores, 1.0, atol=1e-6)
    allowed = np.ones(ITEMS, dtype=np.bool_)
    allowed[equal[::2]] = False
    rows, _ = DeviceIndex(vectors, device).search(QUERIES[:1], K, allowed)
    assert rows[0].tolist() == equal[1::2][:K].tolist()


def test_vectors_of_zeros_are_all_equal(device: torch.device) -> None:
    for vectors, queries in ((np.zeros_like(UNITS), QUERIES), (UNITS, np.zeros_like(QUERIES))):
        rows, scores = DeviceIndex(vectors, device).search(queries, 3)
        assert rows.tolist() == [[0, 1, 2]] * len(queries)
        assert not scores.any()


@pytest.mark.parametrize("scale", [1e6, 1e15, 1e-8, 1e-19])
@pytest.mark.parametrize("query_scale", [1.0, 1e7, 1e-9])
def test_lengths_that_half_precision_cannot_hold(
    device: torch.device, scale: float, query_scale: float
) -> None:
    vectors, queries = np.float32(scale) * UNITS, np.float32(query_scale) * QUERIES
    rows, scores = DeviceIndex(vectors, device).search(queries, K)
    assert np.array_equal(rows, np.argsort(-products(queries, vectors), axis=1, kind="stable")[:, :K])
    assert np.isfinite(scores).all()


@pytest.mark.parametrize("longest", [1e3, 1e6, 1e12])
def test_one_long_vector_among_short_ones(device: torch.device, longest: float) -> None:
    vectors = UNITS.copy()
    vectors[17] *= np.float32(longest)
    rows, _ = DeviceIndex(vectors, device).search(QUERIES, K)
    truth = products(QUERIES, vectors)
    assert np.array_equal(rows, np.argsort(-truth, axis=1, kind="stable")[:, :K])


def test_whatever_the_vectors_nothing_better_is_left_out(device: torch.device) -> None:
    """Clusters from wide apart to nearly equal, lengths from equal to thousands apart."""
    rng = np.random.default_rng(0)
    for spread in (1.0, 1e-2, 1e-3, 1e-4, 1e-6):
        for lengths in (0.0, 1.0, 3.0):
            centres = random_units(5, 24, seed=int(rng.integers(99)))
            drawn = centres[rng.integers(5, size=800)] + spread * rng.normal(size=(800, 24))
            vectors = (drawn * np.exp(lengths * rng.normal(size=(800, 1)))).astype(np.float32)
            queries = (centres + spread * rng.normal(size=centres.shape)).astype(np.float32)
            rows, _ = DeviceIndex(vectors, device).search(queries, 25)
            assert_exact(rows, queries, vectors, 25)


def test_without_the_bound_the_best_would_be_missed(device: torch.device) -> None:
    """The certificate is needed: what the first pass alone finds of near equals is wrong."""
    vectors = np.zeros((1000, 4), dtype=np.float32)
    vectors[:, 0] = 1.0 - 1e-7 * np.arange(1000)[::-1]
    query = np.array([[1.0, 0.0, 0.0, 0.0]], dtype=np.float32)
    index = DeviceIndex(vectors, device)
    asked = torch.from_numpy(query).to(device)
    bars = index._bars([None], np.zeros(1, dtype=np.int64), index.state(1000))
    packed = index.first_pass(asked, 5, 37, bars, 1000).cpu().numpy()
    assert packed[0, -1] == 0
    assert index.search(query, 5)[0][0].max() >= 995


def test_the_first_pass_neither_waits_for_the_device_nor_copies(device: torch.device) -> None:
    index = DeviceIndex(UNITS, device)
    masks = [np.arange(ITEMS) % n == 0 for n in (2, 3)]
    asked = torch.from_numpy(QUERIES).to(device)
    bars = index._bars([*masks, None], np.arange(9) % 3, index.state(ITEMS))
    with no_host_copies():
        packed = index.first_pass(asked, K, K + 32, bars, ITEMS)
    rows = packed.cpu().numpy()[:, :K]
    for query, found in enumerate(rows):
        assert np.array_equal(found, index.search(QUERIES[[query]], K, [*masks, None][query % 3])[0][0])


def test_the_device_is_waited_for_once_and_again_only_for_what_is_unsure(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, waits = DeviceIndex(np.concatenate([UNITS, np.tile(QUERIES[:1], (200, 1))]), device), 0
    original = DeviceTensor.cpu

    def waiting(self: DeviceTensor) -> torch.Tensor:
        nonlocal waits
        waits += 1
        return original(self)

    monkeypatch.setattr(DeviceTensor, "cpu", waiting)
    index.search(QUERIES[1:], K)
    assert waits == 1
    index.search(QUERIES, K)
    assert waits == 3, "of the first query more are equal than are asked for"


def test_a_mask_is_copied_to_the_device_once_and_forgotten_with_it(device: torch.device) -> None:
    before = len(module._DISALLOWED)
    mask = np.arange(ITEMS) % 2 == 0
    index = DeviceIndex(UNITS, device)
    for _ in range(3):
        index.search(QUERIES, K, mask)
    kept = disallowed_rows(mask, device)
    assert disallowed_rows(mask, device) is kept
    assert len(module._DISALLOWED) == before + 1
    assert kept.tolist() == (~mask).tolist()
    del mask
    gc.collect()
    assert len(module._DISALLOWED) == before


def test_many_queries_are_searched_in_blocks(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    index, masks = DeviceIndex(UNITS, device), [np.arange(ITEMS) % n == 0 for n in (2, 3)]
    vectors = np.concatenate([UNITS[:20], QUERIES])
    groups = [
        QueryGroup(np.arange(0, 29, 2), K, masks[0]),
        QueryGroup(np.arange(1, 29, 2), K, masks[1]),
    ]
    whole = index.search_groups(vectors, groups)
    monkeypatch.setattr(module, "SCORES", 3 * 4 * (K + 32) * DIM)
    monkeypatch.setattr(module, "FULL_SCORES", 2 * ITEMS)
    with patch.object(index, "first_pass", wraps=index.first_pass) as passes:
        parts = index.search_groups(vectors, groups)
    assert passes.call_count == 10
    for (rows, scores), (others, other_scores) in zip(whole, parts, strict=True):
        assert np.array_equal(rows, others)
        assert np.array_equal(scores, other_scores)


def test_rows_are_overwritten_and_appended_in_place(device: torch.device) -> None:
    index = DeviceIndex(UNITS, device, room=3)
    added = np.array([ITEMS, ITEMS + 1, 5], dtype=np.int32)
    index.put(added, np.stack([0.9 * QUERIES[0], 2.0 * QUERIES[1], -QUERIES[0]]))
    index.put(added[:0], QUERIES[:0])
    vectors = np.concatenate([UNITS, 0.9 * QUERIES[:1], 2.0 * QUERIES[1:2]])
    vectors[5] = -QUERIES[0]
    state = index.state(ITEMS + 2)
    truth = products(QUERIES, vectors)
    rows, _ = state.search(QUERIES, K)
    assert np.array_equal(rows, np.argsort(-truth, axis=1, kind="stable")[:, :K])
    assert rows[0, 0] == ITEMS
    assert rows[1, 0] == ITEMS + 1
    earlier = index.search(QUERIES, K)[0]
    assert earlier.max() < ITEMS, "rows that came later are not looked at"
    assert np.array_equal(earlier, np.argsort(-truth[:, :ITEMS], axis=1, kind="stable")[:, :K])


@pytest.mark.parametrize("length", [3.9, 1e5, 1e20])
def test_a_much_longer_vector_scales_the_others_anew(device: torch.device, length: float) -> None:
    index = DeviceIndex(UNITS, device)
    vectors = UNITS.copy()
    vectors[8] = np.float32(length) * QUERIES[0]
    index.put(np.array([8], dtype=np.int32), vectors[[8]])
    for query in range(9):
        rows, _ = index.search(QUERIES[[query]], K)
        truth = products(QUERIES[[query]], vectors)
        assert np.array_equal(rows, np.argsort(-truth, axis=1, kind="stable")[:, :K])


def test_a_state_finds_only_what_it_shows(device: torch.device) -> None:
    index = DeviceIndex(UNITS, device)
    shown, allowed = np.arange(ITEMS) % 2 == 0, np.arange(ITEMS) % 3 == 0
    truth = products(QUERIES, UNITS)
    for mask in (None, allowed):
        may = shown if mask is None else shown & mask
        rows, _ = index.state(ITEMS, shown).search(QUERIES, K, mask)
        assert np.array_equal(rows, np.argsort(-np.where(may, truth, -np.inf), axis=1, kind="stable")[:, :K])


def test_reduced_precision_elsewhere_does_not_reach_the_second_pass(device: torch.device) -> None:
    index = DeviceIndex(np.tile(UNITS[:10], (60, 1)), device)
    seen: list[str] = []
    original = index._full_pass

    def noting(*arguments: object) -> torch.Tensor:
        seen.append(torch.get_float32_matmul_precision())
        return original(*arguments)  # type: ignore[arg-type]

    torch.set_float32_matmul_precision("high")
    try:
        with patch.object(index, "_full_pass", noting):
            index.search(UNITS[:1], 7)
        assert seen == ["highest"]
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_what_does_not_fit_is_searched_on_the_cpu(
    device: torch.device, caplog: pytest.LogCaptureFixture
) -> None:
    needed = 6 * (ITEMS + 100) * DIM + module.WORKING
    for free, there in ((needed, True), (needed - 1, False)):
        with patch.object(torch.cuda, "mem_get_info", lambda _, free=free: (free, 2**40)):
            assert fits(ITEMS + 100, DIM, device) == there
            index = build_index(UNITS, device=device, room=100)
        assert isinstance(index, DeviceIndex if there else VectorIndex)
    assert caplog.messages == [
        "3100 vectors of width 32 are searched on the CPU: cuda:0 has no 0.0 GB free for them"
    ]
