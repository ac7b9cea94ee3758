from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from conf.schema import SplitConfig, SplitKind
from features.data.dataset import BoolArray, Dataset, FloatArray
from features.data.splits import Queries, Split, make_split
from ranking.evaluation.cold_items import RANDOM, cold_parts, cold_summary, random_values
from ranking.evaluation.list_providers import Answer, system_lister
from ranking.evaluation.metrics import ranking_metrics
from ranking.evaluation.stage_recall import SystemLists
from tests.ranking.baselines.test_registry import make_events
from tests.ranking.evaluated import evaluate
from tests.ranking.evaluation.test_metrics import ask
from tests.synthetic import DAY, EventRow, make_dataset

T0 = 1_600_000_000 // DAY * DAY
SECOND = 1 / math.log2(3)
"""Gain of the second place."""


def mask(items: int, *rows: int) -> BoolArray:
    allowed = np.zeros(items, dtype=np.bool_)
    allowed[list(rows)] = True
    return allowed


def queries_of(ends: list[int], *targets: list[int]) -> Queries:
    queries = ask(*targets)
    return Queries(
        queries.user,
        np.array(ends, dtype=np.int64),
        queries.time,
        queries.target_offsets,
        queries.targets,
        queries.target_kinds,
    )


def test_the_random_expectation_by_hand() -> None:
    # Five of eight items are listed. User 0 knows item 4, which is one of them, and item 0, which is not.
    events = make_events([[4, 0, 4, 5, 6], [1, 7], [3, 3]])
    queries = queries_of([3, 5, 9], [5, 6], [7], [3, 5])
    allowed = mask(8, 3, 4, 5, 6, 7)
    values = random_values(events, queries, allowed, exclude_seen=True, k=2)
    # User 0: 4 items left, 2 of them right, 2 places: one hit of two.  User 1: 1 in 5 at each of 2 places.
    # User 2: item 3 is in the history and cannot be hit, so one of the two targets is 1 in 4 at each place.
    assert values["recall@2"] == pytest.approx([0.5, 0.4, 0.25])
    assert values["ndcg@2"] == pytest.approx([0.5, 0.2 * (1 + SECOND), 0.25])
    kept = random_values(events, queries, allowed, exclude_seen=False, k=2)
    assert kept["recall@2"] == pytest.approx([0.4, 0.4, 0.4])


def test_a_catalogue_shorter_than_the_list_is_shown_whole() -> None:
    events = make_events([[0], [1]])
    queries = queries_of([1, 2], [1], [1])
    values = random_values(events, queries, mask(4, 1, 2), exclude_seen=True, k=10)
    # User 0 sees both in either order; user 1 cannot get item 1 again.
    assert values["recall@10"] == pytest.approx([1.0, 0.0])
    assert values["ndcg@10"] == pytest.approx([0.5 * (1 + SECOND), 0.0])
    nothing = random_values(events, queries, mask(4), exclude_seen=True, k=10)
    assert nothing["recall@10"].tolist() == nothing["ndcg@10"].tolist() == [0.0, 0.0]


def test_the_random_expectation_is_the_mean_over_random_lists() -> None:
    rng = np.random.default_rng(0)
    events = make_events([[0, 1, 2], [5], []])
    queries = queries_of([3, 4, 4], [3, 9], [7, 8, 9], [4])
    allowed = np.arange(12) >= 2
    draws = []
    for _ in range(4000):
        lists = np.full((3, 10), -1, dtype=np.int32)
        for user, history in enumerate(([0, 1, 2], [5], [])):
            order = rng.permutation([i for i in range(2, 12) if i not in history])[:5]
            lists[user, : len(order)] = order
        found = ranking_metrics(lists, queries, (5,))
        draws.append([found["recall@5"], found["ndcg@5"]])
    expected = random_values(events, queries, allowed, exclude_seen=True, k=5)
    mean = np.mean(draws, axis=0)
    np.testing.assert_allclose(mean[0], expected["recall@5"], atol=0.02)
    np.testing.assert_allclose(mean[1], expected["ndcg@5"], atol=0.02)


def shop() -> Dataset:
    """`a` and `b` sell in training, `c` first in validation, `d` and `e` first in test, `f` never."""
    rows: list[EventRow] = [
        ("u", "a", "purchase", T0),
        ("u", "b", "purchase", T0 + DAY),
        ("u", "c", "purchase", T0 + 9 * DAY),
        ("u", "d", "purchase", T0 + 11 * DAY),
        ("u", "a", "purchase", T0 + 12 * DAY),
        ("v", "a", "purchase", T0 + 1),
        ("v", "b", "purchase", T0 + 2 * DAY),
        ("v", "b", "purchase", T0 + 9 * DAY),
        ("v", "c", "purchase", T0 + 11 * DAY),
        ("v", "e", "purchase", T0 + 12 * DAY),
    ]
    return make_dataset(rows, ["a", "b", "c", "d", "e", "f"])


def split_of_shop(dataset: Dataset) -> Split:
    config = SplitConfig(
        valid_start=str(np.datetime64(T0 + 8 * DAY, "s")),
        test_start=str(np.datetime64(T0 + 10 * DAY, "s")),
        ranker_fraction=0.3,
    )
    return make_split(dataset, config, [])


def test_cold_catalogues_by_hand() -> None:
    dataset = shop()
    split = split_of_shop(dataset)
    untrained, unknown = cold_parts(dataset, split.test, split.train_end, split.state_end)
    assert untrained.name == "no_training_event"
    assert np.flatnonzero(untrained.allowed).tolist() == [2, 3, 4, 5]  # c d e f
    assert [untrained.queries.targets.tolist(), untrained.index.tolist()] == [[3, 2, 4], [0, 1]]
    assert unknown.name == "no_event"
    assert np.flatnonzero(unknown.allowed).tolist() == [3, 4, 5]  # somebody bought c before test
    assert unknown.queries.targets.tolist() == [3, 4]
    (only,) = cold_parts(dataset, split.valid, split.train_end, split.train_end)
    assert only.queries.targets.tolist() == [2]


def test_what_is_bought_later_does_not_decide_what_is_cold() -> None:
    dataset, split = shop(), split_of_shop(shop())
    late = np.arange(len(dataset.events)) >= split.state_end[dataset.events.user]
    item = np.where(late, 5, dataset.events.item).astype(np.int32)  # all of the test window buys `f`
    changed = replace(dataset, events=replace(dataset.events, item=item))
    for before, after in zip(
        *(cold_parts(d, split.test, split.train_end, split.state_end) for d in (dataset, changed)),
        strict=True,
    ):
        np.testing.assert_array_equal(before.allowed, after.allowed)


def test_both_catalogues_are_measured_on_the_same_targets() -> None:
    dataset = shop()
    split = split_of_shop(dataset)

    def in_order(queries: Queries, allowed: BoolArray | None = None) -> SystemLists:
        listed = np.arange(6) if allowed is None else np.flatnonzero(allowed)
        rows = np.tile(listed, (len(queries), 1)).astype(np.int32)
        return SystemLists(rows, -rows.astype(np.float32), {}, rows, rows)

    lister = system_lister(in_order, (10,))
    part = cold_parts(dataset, split.test, split.train_end, split.state_end)[0]
    part.run("rows", lister)
    whole: dict[str, Answer] = {"rows": lister(split.test, None)}
    found = cold_summary(part, whole, dataset.events, False, 100, 0, 0.95)
    assert (found["items"], found["queries"], found["targets"]) == (4, 2, 3)
    gain = [1 / math.log2(rank + 1) for rank in range(1, 7)]
    # Among c d e f, u's target d is second, v's c and e are first and third; in all, each is two lower.
    assert found["systems"]["rows"]["within"]["ndcg@10"] == pytest.approx(
        (gain[1] + (gain[0] + gain[2]) / (gain[0] + gain[1])) / 2
    )
    assert found["systems"]["rows"]["full"]["ndcg@10"] == pytest.approx(
        (gain[3] + (gain[2] + gain[4]) / (gain[0] + gain[1])) / 2
    )
    assert (
        found["systems"]["rows"]["within"]["recall@10"] == found["systems"][RANDOM]["full"]["recall@10"] == 1
    )
    low, high = found["confidence"]["rows"]["ndcg@10"]
    assert low <= found["systems"]["rows"]["within"]["ndcg@10"] <= high


def test_the_result_holds_the_cold_catalogue(dataset: Dataset, text_vectors: FloatArray) -> None:
    result = evaluate(dataset, vectors=text_vectors).result
    for window in ("valid", "test"):
        for part in result["cold_catalogue"][window].values():
            assert list(part["systems"]) == ["shelfwise", "popularity", "item_knn", RANDOM]
    test = result["cold_catalogue"]["test"]
    assert set(test) == {"no_training_event", "no_event"}
    cold = test["no_training_event"]
    # The full catalogue's numbers are those of the slice.
    assert cold["targets"] == result["slices"]["cold_items"]["targets"]
    for name, values in result["slices"]["cold_items"]["systems"].items():
        assert cold["systems"][name]["full"] == values
    apart = evaluate(dataset, kind=SplitKind.leave_one_out).result["cold_catalogue"]["test"]
    assert set(apart) == {"no_training_event"}  # statistics know what the towers know
