from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.data.dataset import Dataset
from features.data.splits import Queries
from ranking.evaluation.diagnostics import shortcuts as module
from ranking.evaluation.diagnostics.shortcuts import shortcuts, transitions
from tests.ranking.evaluation.test_metrics import ask
from tests.synthetic import DAY, TOPICS, EventRow, make_dataset

T0 = 1_600_000_000 // DAY * DAY


def shop() -> tuple[Dataset, Queries]:
    """Return a shop whose first user has the history a b a c, and the second none, with their targets."""
    rows: list[EventRow] = [
        ("u", "a", "purchase", T0),
        ("u", "b", "purchase", T0 + 1),
        ("u", "a", "purchase", T0 + DAY),
        ("u", "c", "purchase", T0 + 2 * DAY),
        ("u", "d", "purchase", T0 + 2 * DAY + 5),  # targets: the same day
        ("u", "a", "purchase", T0 + 4 * DAY),  # and later
        ("v", "b", "purchase", T0 + 3 * DAY),
        ("w", "c", "purchase", T0),
        ("w", "c", "purchase", T0),
        ("w", "d", "purchase", T0 + 1),
    ]
    dataset = make_dataset(rows, ["a", "b", "c", "d"])
    queries = replace(
        ask([0, 3], [1]),
        user=np.array([0, 1], dtype=np.int32),
        end=np.array([4, 6]),
        time=np.full(2, T0 + 2 * DAY),
    )
    return dataset, queries


KNOWN = np.array([4, 6, 10])
"""The histories of u and v, and all of w's."""


def test_transitions_are_counted_within_histories_and_before_the_cut() -> None:
    dataset, _ = shop()
    pairs = transitions(dataset.events, KNOWN).sort("item", "next")
    # u: a-b, b-a, a-c; w: c-d; the repeated c is no transition
    assert pairs.rows() == [(0, 1, 1), (0, 2, 1), (1, 0, 1), (2, 3, 1)]


def test_shortcuts_by_hand() -> None:
    dataset, queries = shop()
    vectors = np.array([[1, 0], [0, 1], [0.8, 0.6], [0.6, 0.8]], dtype=np.float32)
    found = shortcuts(dataset, queries, KNOWN, vectors, seed=0)
    assert found["targets"] == 3
    assert found["targets_with_history"] == 2
    assert found["same_day"] == 1 / 2  # d, not a
    assert found["in_history"] == 1 / 2  # a, not d
    assert found["transitions"] == 4
    assert found["mean_successors"] == pytest.approx(4 / 3)  # a: b, c; b: a; c: d
    assert found["median_successors"] == 1
    assert found["targets_known_successors"] == 1 / 2  # after c comes d
    assert found["targets_known_successors_by_chance"] == 1 / 4
    # the list of c's successors is d, half of the first query's targets; the second has no last item
    assert found["successors_recall@10"] == pytest.approx((1 / 2 + 0) / 2)
    assert found["text"]["queries"] == 1
    assert found["text"]["targets_in_nearest_10"] == 1
    assert found["text"]["by_chance_10"] == 1  # of three other items


def test_nearest_texts_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, queries = shop()
    vectors = np.array([[1, 0], [0, 1], [0.8, 0.6], [0.6, 0.8]], dtype=np.float32)
    monkeypatch.setattr(module, "NEAREST", (1, 2))
    # cosines to c: a .8, b .6, d .96: d is nearest, a second
    text = shortcuts(dataset, queries, KNOWN, vectors, seed=0)["text"]
    assert text["targets_in_nearest_1"] == 1 / 2
    assert text["targets_in_nearest_2"] == 1
    assert text["by_chance_1"] == pytest.approx(1 / 3)
    # the last item itself is no neighbour of it
    again = replace(queries, targets=np.array([2, 3, 1], dtype=np.int32))
    assert shortcuts(dataset, again, KNOWN, vectors, seed=0)["text"]["targets_in_nearest_1"] == 1 / 2


def test_texts_are_compared_for_a_seeded_sample_in_blocks(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = dataset.events
    vectors = np.eye(len(TOPICS), dtype=np.float32)[np.arange(len(dataset.catalogue)) % len(TOPICS)]
    users = np.arange(events.users, dtype=np.int32)
    last = events.offsets[1:] - 1
    queries = replace(
        ask(*[[int(events.item[end])] for end in last]), user=users, end=last, time=events.time[last - 1]
    )
    whole = shortcuts(dataset, queries, last, vectors, seed=0)
    monkeypatch.setattr(module, "BLOCK_CELLS", 7 * len(vectors))
    assert shortcuts(dataset, queries, last, vectors, seed=0) == whole
    monkeypatch.setattr(module, "FEWEST", 10)
    monkeypatch.setattr(module, "TEXT_CELLS", 20 * len(vectors))
    part = shortcuts(dataset, queries, last, vectors, seed=0)
    assert part["text"]["queries"] == 20
    assert part == shortcuts(dataset, queries, last, vectors, seed=0)
    # Items follow each other as planted, among texts of their own topic.
    assert whole["targets_known_successors"] > 5 * whole["targets_known_successors_by_chance"]
    assert whole["text"]["targets_in_nearest_10"] > 4 * whole["text"]["by_chance_10"]


def test_what_does_not_apply_is_null() -> None:
    dataset, queries = shop()
    timeless = shortcuts(replace(dataset, has_time=False), queries, KNOWN, None, seed=0)
    assert timeless["same_day"] is None
    assert timeless["text"] is None
    strangers = queries.select(np.array([1]))
    nothing = shortcuts(dataset, strangers, np.array([0, 6, 7]), np.eye(4, dtype=np.float32), seed=0)
    assert nothing["targets_with_history"] == 0
    assert nothing["mean_successors"] is None
    assert nothing["targets_known_successors"] is None
    assert nothing["text"]["targets_in_nearest_10"] is None
