from __future__ import annotations

import importlib
import math
import warnings
from itertools import product
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.data.dataset import Events, FloatArray, IntArray
from features.data.splits import Queries
from ranking.evaluation.metrics import (
    catalogue_coverage,
    hit_matrix,
    intra_list_diversity,
    means,
    novelty,
    popularity_lift,
    ranking_metrics,
    recall_at,
)

KS = (1, 2, 3, 5)


def ask(*targets: list[int]) -> Queries:
    sizes = [len(t) for t in targets]
    n = len(targets)
    return Queries(
        user=np.arange(n, dtype=np.int32),
        end=np.zeros(n, dtype=np.int64),
        time=np.zeros(n, dtype=np.int64),
        target_offsets=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        targets=np.array([i for t in targets for i in t], dtype=np.int32),
        target_kinds=np.zeros(sum(sizes), dtype=np.int32),
    )


def rows(*lists: list[int]) -> IntArray:
    return np.array(lists, dtype=np.int32)


def disc(*ranks: int) -> float:
    return sum(1 / math.log2(r + 1) for r in ranks)


def test_two_hits_of_three_targets_by_hand() -> None:
    # hits at ranks 2 and 4, a third target missing from the list
    m = ranking_metrics(rows([9, 1, 8, 2, 7]), ask([1, 2, 3]), KS)
    assert [m[f"recall@{k}"][0] for k in KS] == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3])
    assert [m[f"hit@{k}"][0] for k in KS] == [0, 1, 1, 1]
    assert [m[f"mrr@{k}"][0] for k in KS] == pytest.approx([0, 1 / 2, 1 / 2, 1 / 2])
    assert m["mrr"][0] == 1 / 2
    # precision at the hits is 1/2 and 2/4; divided by min(k, 3)
    assert [m[f"map@{k}"][0] for k in KS] == pytest.approx([0, (1 / 2) / 2, (1 / 2) / 3, (1 / 2 + 2 / 4) / 3])
    assert [m[f"ndcg@{k}"][0] for k in KS] == pytest.approx(
        [0, disc(2) / disc(1, 2), disc(2) / disc(1, 2, 3), disc(2, 4) / disc(1, 2, 3)]
    )


def test_a_perfect_list_scores_one_except_where_it_cannot_hold_every_target() -> None:
    m = ranking_metrics(rows([4, 5, 6]), ask([4, 5, 6]), (1, 2, 3, 10))
    for k in (1, 2, 3, 10):
        assert m[f"ndcg@{k}"][0] == pytest.approx(1)
        assert m[f"map@{k}"][0] == pytest.approx(1)
        assert m[f"mrr@{k}"][0] == 1
        assert m[f"recall@{k}"][0] == pytest.approx(min(k, 3) / 3)


def test_the_plain_mrr_looks_past_every_cut_off() -> None:
    m = ranking_metrics(rows([1, 2, 3, 4]), ask([4]), (1, 3))
    assert m["mrr@3"][0] == 0
    assert m["mrr"][0] == 1 / 4


def test_padding_never_hits_and_empty_lists_score_zero() -> None:
    m = ranking_metrics(rows([-1, -1, -1], [3, -1, -1]), ask([0], [3]), (1, 3))
    for name, values in m.items():
        assert values[0] == 0, name
        assert values[1] == pytest.approx(1), name


def test_padding_of_one_query_is_not_the_last_item_of_the_query_before() -> None:
    # row * span - 1 is the key of the previous query's largest item
    assert not hit_matrix(rows([0, 1], [-1, 0]), ask([1], [1]))[1].any()


def test_lists_without_columns_score_zero() -> None:
    m = ranking_metrics(np.zeros((2, 0), dtype=np.int32), ask([0], [1, 2]), (1, 10))
    assert all((values == 0).all() for values in m.values())
    assert recall_at(np.zeros((2, 0), dtype=np.int32), ask([0], [1, 2]), (1, 200))[1].tolist() == [0, 0]


def test_a_query_without_targets_scores_zero() -> None:
    m = ranking_metrics(rows([1, 2], [1, 2]), ask([], [2]), (1, 2))
    assert all(values[0] == 0 for values in m.values())
    assert m["recall@2"][1] == 1
    assert m["mrr"][1] == 1 / 2


def test_no_queries_give_no_values_and_null_means() -> None:
    m = ranking_metrics(np.zeros((0, 3), dtype=np.int32), ask(), (1,))
    assert all(len(values) == 0 for values in m.values())
    assert set(means(m).values()) == {None}


def test_a_repeated_item_counts_once_and_keeps_its_rank() -> None:
    m = ranking_metrics(rows([1, 1, 2, 1]), ask([1, 2]), (2, 3, 4))
    assert m["recall@2"][0] == 1 / 2
    assert m["recall@4"][0] == 1
    assert m["map@3"][0] == pytest.approx((1 + 2 / 3) / 2)
    assert m["ndcg@3"][0] == pytest.approx(disc(1, 3) / disc(1, 2))


def test_the_same_item_hits_in_every_query_that_wants_it() -> None:
    assert hit_matrix(rows([5, 6], [5, 6], [6, 5]), ask([5], [6], [7])).tolist() == [
        [True, False],
        [False, True],
        [False, False],
    ]


def test_recall_at_agrees_with_the_full_metrics() -> None:
    rng = np.random.default_rng(3)
    items = rng.integers(-1, 40, size=(50, 12)).astype(np.int32)
    queries = ask(*[rng.choice(40, size=rng.integers(0, 6), replace=False).tolist() for _ in range(50)])
    m = ranking_metrics(items, queries, (4, 12))
    at4, at12, at99 = recall_at(items, queries, (4, 12, 99))
    np.testing.assert_array_equal(at4, m["recall@4"])
    np.testing.assert_array_equal(at12, m["recall@12"])
    np.testing.assert_array_equal(at99, m["recall@12"])


def test_wrong_shapes_and_cut_offs_are_refused() -> None:
    with pytest.raises(ValueError, match="lists for 2 queries"):
        ranking_metrics(rows([1]), ask([1], [2]), (1,))
    with pytest.raises(ValueError, match="cut-offs"):
        ranking_metrics(rows([1]), ask([1]), (0,))


@given(st.data())
def test_metrics_stay_within_bounds_and_grow_with_k(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 6))
    depth = data.draw(st.integers(1, 8))
    lists = data.draw(
        st.lists(st.lists(st.integers(-1, 9), min_size=depth, max_size=depth), min_size=n, max_size=n)
    )
    wanted = data.draw(st.lists(st.lists(st.integers(0, 9), unique=True, max_size=5), min_size=n, max_size=n))
    ks = (1, 2, 4, 8, 16)
    m = ranking_metrics(np.array(lists, dtype=np.int32), ask(*wanted), ks)
    for values in m.values():
        assert ((values >= 0) & (values <= 1 + 1e-12)).all()
    for metric in ("recall", "hit", "mrr"):
        for low, high in zip(ks[:-1], ks[1:], strict=True):
            assert (m[f"{metric}@{low}"] <= m[f"{metric}@{high}"] + 1e-12).all()
    for k in ks:
        assert (m[f"recall@{k}"] <= m[f"hit@{k}"]).all()
        assert (m[f"mrr@{k}"] <= m[f"hit@{k}"]).all()


@pytest.fixture
def second_implementation(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import ranx as plain Python: compiling it takes longer than all of these tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monkeypatch.setattr(importlib.import_module("numba").config, "DISABLE_JIT", True)
        return importlib.import_module("ranx")


def test_equal_to_a_second_implementation_on_random_lists(second_implementation: ModuleType) -> None:
    rng = np.random.default_rng(11)
    n, depth, n_items = 120, 20, 60
    items = np.stack([rng.permutation(n_items)[:depth] for _ in range(n)]).astype(np.int32)
    wanted = [rng.choice(n_items, size=rng.integers(1, 15), replace=False).tolist() for _ in range(n)]
    lists = [{str(item): float(depth - rank) for rank, item in enumerate(row)} for row in items]
    names = [f"q{i:03d}" for i in range(n)]
    qrels = second_implementation.Qrels(
        {name: {str(item): 1 for item in targets} for name, targets in zip(names, wanted, strict=True)}
    )
    run = second_implementation.Run(dict(zip(names, lists, strict=True)))
    sizes = np.array([len(targets) for targets in wanted])
    ours = ranking_metrics(items, ask(*wanted), (1, 5, 10, 20))
    pairs = {"recall": "recall", "ndcg": "ndcg", "mrr": "mrr", "hit": "hit_rate", "map": "map"}
    for k, (metric, theirs) in product((1, 5, 10, 20), pairs.items()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            second_implementation.evaluate(qrels, run, f"{theirs}@{k}")
        expected = np.array([run.scores[f"{theirs}@{k}"][name] for name in names])
        if metric == "map":  # the library divides by all targets, even those that k places cannot hold
            expected = expected * sizes / np.minimum(sizes, k)
        np.testing.assert_allclose(ours[f"{metric}@{k}"], expected, atol=1e-12, err_msg=f"{metric}@{k}")


def test_coverage_counts_distinct_items_within_k() -> None:
    lists = rows([0, 1, 5], [1, 2, -1])
    assert catalogue_coverage(lists, 10, 2) == 3 / 10
    assert catalogue_coverage(lists, 10, 3) == 4 / 10
    assert catalogue_coverage(rows([-1, -1]), 10, 2) == 0


def test_novelty_by_hand() -> None:
    counts = np.array([3, 1, 0, 0], dtype=np.int64)  # smoothed: 4/8, 2/8, 1/8, 1/8
    assert novelty(rows([0, 1]), counts, 2) == pytest.approx((1 + 2) / 2)
    assert novelty(rows([0, 0], [3, -1], [-1, -1]), counts, 2) == pytest.approx((1 + 3) / 2)
    assert novelty(rows([0, 3]), counts, 1) == pytest.approx(1)
    assert novelty(rows([-1]), counts, 1) is None


def test_diversity_by_hand() -> None:
    vectors: FloatArray = np.array([[1, 0], [0, 1], [1, 0], [-1, 0]], dtype=np.float32)
    assert intra_list_diversity(rows([0, 1]), vectors, 2) == pytest.approx(1)
    assert intra_list_diversity(rows([0, 2]), vectors, 2) == pytest.approx(0)
    assert intra_list_diversity(rows([0, 3]), vectors, 2) == pytest.approx(2)
    # pairs (0,1) 0, (0,2) 1, (1,2) 0: mean cosine 1/3
    assert intra_list_diversity(rows([0, 1, 2]), vectors, 3) == pytest.approx(2 / 3)
    # a repeated item and single items form no pair
    assert intra_list_diversity(rows([0, 0, -1], [1, -1, -1]), vectors, 3) is None
    # averaged over lists, in blocks as in one go
    lists = rows([0, 1], [0, 2], [0, 3])
    assert intra_list_diversity(lists, vectors, 2, block=2) == pytest.approx(1)


def test_popularity_lift_by_hand() -> None:
    counts = np.array([8, 4, 2, 0], dtype=np.int64)
    events = Events(
        user=np.array([0, 0, 1], dtype=np.int32),
        item=np.array([1, 2, 2], dtype=np.int32),
        kind=np.zeros(3, dtype=np.int8),
        time=np.zeros(3, dtype=np.int64),
        offsets=np.array([0, 2, 3, 3], dtype=np.int64),
    )
    queries = Queries(
        user=np.array([0, 1, 2], dtype=np.int32),
        end=np.array([2, 3, 3], dtype=np.int64),
        time=np.zeros(3, dtype=np.int64),
        target_offsets=np.arange(4, dtype=np.int64),
        targets=np.zeros(3, dtype=np.int32),
        target_kinds=np.zeros(3, dtype=np.int32),
    )
    # histories: mean(4, 2) = 3 and 2; lists: mean(8, 4) = 6 and 8; user 2 has no history
    lists = rows([0, 1], [0, -1], [0, 1])
    assert popularity_lift(lists, events, queries, counts, 2) == pytest.approx((6 + 8) / (3 + 2))
    assert popularity_lift(lists[2:], events, queries.select(np.array([2])), counts, 2) is None
