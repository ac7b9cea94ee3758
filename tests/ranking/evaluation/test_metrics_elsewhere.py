"""Metrics equal those of two other libraries on random and adversarial lists.

Both libraries rank documents with scores, without padding and repeated documents. So every place of a
list is a document of its own, relevant where a target stands for the first time; targets that the list lacks
are documents behind all places.
"""

from __future__ import annotations

import importlib
import warnings
from itertools import product
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchmetrics.functional import retrieval

from features.data.dataset import BoolArray, IntArray
from ranking.evaluation.metrics import ranking_metrics
from ranking.evaluation.offline import _order, _taken
from tests.ranking.evaluation.test_metrics import ask

KS = (1, 2, 3, 5, 10, 30)
"""The last ones exceed every list of these tests."""
NAMES = ("recall", "ndcg", "mrr", "hit", "map")


def relevant_places(items: list[int], targets: list[int]) -> BoolArray:
    """Return, of the places of a list and then of the missing targets, which are relevant."""
    seen: set[int] = set()
    places = []
    for item in items:
        places.append(item in targets and item not in seen)
        seen.add(item)
    places += [False] * (max(KS) - len(places))  # no target may move up into a place that the list lacks
    return np.array(places + [True] * (len(targets) - sum(places)), dtype=np.bool_)


def by_torchmetrics(places: BoolArray, targets: int, k: int) -> dict[str, float]:
    preds = torch.arange(len(places), 0, -1, dtype=torch.float32)
    relevant = torch.from_numpy(places)
    function: Any
    values = {}
    for name, function in {
        "recall": retrieval.retrieval_recall,
        "ndcg": retrieval.retrieval_normalized_dcg,
        "mrr": retrieval.retrieval_reciprocal_rank,
        "hit": retrieval.retrieval_hit_rate,
        "map": retrieval.retrieval_average_precision,
    }.items():
        values[name] = float(function(preds, relevant, top_k=k))
    # It divides by the hits within k, not by those that a perfect list has there.
    values["map"] *= int(places[:k].sum()) / max(min(targets, k), 1)
    return values


Lists = list[list[int]]


@st.composite
def adversarial(draw: st.DrawFn) -> tuple[Lists, Lists]:
    """Draw lists of few distinct items, with padding anywhere, and no to many targets."""
    n = draw(st.integers(1, 4))
    depth = draw(st.integers(0, 12))
    items = st.lists(st.integers(-1, 9), min_size=depth, max_size=depth)
    targets = st.lists(st.integers(0, 30), unique=True, max_size=25)
    return [draw(items) for _ in range(n)], [draw(targets) for _ in range(n)]


@settings(deadline=None)
@given(adversarial())
@example(([[3, 3, 3, -1, 3]], [[3]]))  # one item again and again
@example(([[-1, -1, 4]], [[4]]))  # padding in front
@example(([[]], [[1, 2]]))  # nothing listed
@example(([[5, 6, 7]], [[]]))  # nothing wanted
@example(([[0, 1, 2]], [list(range(25))]))  # more targets than places
def test_equal_to_torchmetrics_on_adversarial_lists(case: tuple[Lists, Lists]) -> None:
    lists, wanted = case
    items = np.array(lists, dtype=np.int32).reshape(len(lists), -1)
    ours = ranking_metrics(items, ask(*wanted), KS)
    for query, (row, targets) in enumerate(zip(lists, wanted, strict=True)):
        for k in KS:
            theirs = by_torchmetrics(relevant_places(row, targets), len(targets), k)
            for name in NAMES:
                assert ours[f"{name}@{k}"][query] == pytest.approx(theirs[name], abs=1e-6), (name, k)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.integers(0, 2**31))
def test_tied_scores_are_ordered_by_row_and_then_equal(scores: list[int], seed: int) -> None:
    # Candidates in any order, with few distinct scores: torchmetrics gets the ties broken by row.
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(scores)).astype(np.int32)[None]
    values = np.array(scores, dtype=np.float32)[None]
    listed, _ = _taken(rows, values, _order(rows, values))
    by_row = [int(row) for _, row in sorted(zip([-s for s in scores], rows[0].tolist(), strict=True))]
    assert listed[0, : len(scores)].tolist() == by_row
    targets = [row for row in range(len(scores)) if rng.random() < 0.5]
    ours = ranking_metrics(listed, ask(targets), KS)
    for k in KS:
        theirs = by_torchmetrics(relevant_places(by_row, targets), len(targets), k)
        for name in NAMES:
            assert ours[f"{name}@{k}"][0] == pytest.approx(theirs[name], abs=1e-6), (name, k)


@pytest.fixture
def ranx(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import ranx as plain Python: compiling it takes longer than all of these tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        monkeypatch.setattr(importlib.import_module("numba").config, "DISABLE_JIT", True)
        return importlib.import_module("ranx")


def random_lists(rng: np.random.Generator, n: int) -> tuple[IntArray, Lists]:
    """Return lists with repeats, padding at any place and ends, and 1 to 40 targets, more than any list."""
    items = rng.integers(-1, 25, size=(n, 20)).astype(np.int32)
    short = rng.integers(0, 21, size=n)
    items[np.arange(20) >= short[:, None]] = -1
    sizes = rng.integers(1, 41, size=n)
    return items, [rng.choice(60, size=size, replace=False).tolist() for size in sizes]


def test_equal_to_ranx_on_repeats_padding_and_many_targets(ranx: ModuleType) -> None:
    items, wanted = random_lists(np.random.default_rng(5), 80)
    ours = ranking_metrics(items, ask(*wanted), KS)
    qrels, run = {}, {}
    for query, (row, targets) in enumerate(zip(items.tolist(), wanted, strict=True)):
        places = relevant_places(row, targets)
        name = f"q{query:03d}"
        qrels[name] = {f"d{place}": 1 for place in np.flatnonzero(places).tolist()}
        run[name] = {f"d{place}": float(len(places) - place) for place in range(len(places))}
    judged, ranked = ranx.Qrels(qrels), ranx.Run(run)
    sizes = np.array([len(targets) for targets in wanted])
    pairs = {"recall": "recall", "ndcg": "ndcg", "mrr": "mrr", "hit": "hit_rate", "map": "map"}
    for k, (metric, theirs) in product(KS, pairs.items()):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ranx.evaluate(judged, ranked, f"{theirs}@{k}")
        expected = np.array([ranked.scores[f"{theirs}@{k}"][name] for name in qrels])
        if metric == "map":  # it divides by all targets, even those that k places cannot hold
            expected = expected * sizes / np.minimum(sizes, k)
        np.testing.assert_allclose(ours[f"{metric}@{k}"], expected, atol=1e-12, err_msg=f"{metric}@{k}")
