"""Contexts to learn from: what is drawn from histories, its weights and its false negatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from encoders import contexts
from encoders.contexts import ContextBatch, ContextSampler
from encoders.text.catalogue_vectors import text_ids
from features.data.dataset import Dataset
from tests.encoders.sampled import sampler_of
from tests.synthetic import make_dataset


def test_contexts_are_what_came_just_before_in_one_history(dataset: Dataset) -> None:
    window, piece = 3, 4
    events = dataset.events
    allowed: set[tuple[int, tuple[int, ...], int]] = set()
    for user in range(events.users):
        own = events.item[events.offsets[user] : events.offsets[user + 1]].tolist()
        for place in range(1, len(own)):
            for first in range(max(place - piece + 1, 0), place):
                before = own[max(place - window, first) : place]
                allowed.add((user, tuple(i for i in before if i != own[place]), own[place]))
    drawn: set[tuple[int, tuple[int, ...], int]] = set()
    for batch in sampler_of(dataset, window, piece=piece).batches(300, 32, seed=0):
        for user, context, positive in zip(batch.user, batch.context, batch.positive, strict=True):
            drawn.add((int(user), tuple(int(i) for i in context if i >= 0), int(positive)))
    assert drawn <= allowed
    pairs = {(user, positive) for user, _, positive in allowed}
    assert len({(u, p) for u, _, p in drawn}) > 0.95 * len(pairs), "every positive is drawn sooner or later"


def test_a_piece_gives_a_context_per_event_but_its_first() -> None:
    rows = [("u", item, "purchase", n) for n, item in enumerate("abcdef")]
    data = make_dataset(rows, list("abcdef"))
    sampler = sampler_of(data, window=2, piece=4)
    for batch in sampler.batches(20, 1, seed=0):
        last = int(batch.positive[-1])
        count = min(last, 3)
        assert batch.positive.tolist() == list(range(last - count + 1, last + 1))
        first = last - count
        assert batch.context[0].tolist() == [-1, first], "what lies before the piece is not read"
        assert batch.rows().tolist() == list(range(first, last + 1))


def test_contexts_come_from_training_prefixes_only(dataset: Dataset) -> None:
    events = dataset.events
    end = events.offsets[:-1] + 3
    sampler = ContextSampler(events, end, dataset.kind_weights, text_ids(dataset.catalogue.texts), 5, 8)
    allowed = {
        (user, int(item))
        for user in range(events.users)
        for item in events.item[events.offsets[user] : end[user]]
    }
    for batch in sampler.batches(40, 16, seed=1):
        for user, context, positive in zip(batch.user, batch.context, batch.positive, strict=True):
            assert {(int(user), int(i)) for i in context if i >= 0} | {(int(user), int(positive))} <= allowed


def test_the_same_seed_draws_the_same_contexts(dataset: Dataset) -> None:
    def draw(seed: int) -> list[list[int]]:
        return [b.positive.tolist() for b in sampler_of(dataset).batches(3, 8, seed)]

    assert draw(5) == draw(5) != draw(6)


def test_a_context_weighs_what_its_positive_weighs() -> None:
    rows = [("u", "a", "purchase", 0), ("u", "b", "click", 1), ("u", "c", "purchase", 2)]
    data = make_dataset(rows, ["a", "b", "c"], {"purchase": 1.0, "click": 0.25})
    for batch in sampler_of(data).batches(10, 4, seed=0):
        expected = {1: 0.25, 2: 1.0}
        assert batch.weight.tolist() == [expected[int(p)] for p in batch.positive]


def test_items_that_read_the_same_make_no_context() -> None:
    rows = [("u", item, "purchase", 0) for item in ("a", "b", "a", "b", "a", "c")]
    data = make_dataset(rows, ["a", "b", "c"])
    same = np.array([0, 0, 1], np.int32)
    sampler = sampler_of(data, window=2, texts=same)
    for batch in sampler.batches(20, 4, seed=0):
        assert len(batch.user) > 0
        assert set(batch.positive.tolist()) == {2}
    assert len(sampler) == 1
    assert len(sampler_of(data, texts=np.zeros(3, np.int32))) == 0, "nothing to learn from"


def test_log_q_by_hand() -> None:
    rows = [("u", item, "purchase", 0) for item in ("a", "b", "a")]
    data = make_dataset(rows, ["a", "b", "c"])
    np.testing.assert_allclose(sampler_of(data).log_q, np.log([3 / 6, 2 / 6, 1 / 6]), atol=1e-6)


def test_false_negatives_are_the_users_own_items_and_equal_texts() -> None:
    rows = [("u", "a", "purchase", 0), ("u", "b", "purchase", 1), ("v", "c", "purchase", 0)]
    data = make_dataset(rows, ["a", "b", "c", "d", "e"])
    sampler = sampler_of(data, texts=np.array([0, 1, 2, 1, 3], np.int32))
    batch = ContextBatch(
        np.array([0, 1], np.int32),
        np.array([[0], [2]], np.int32),
        np.array([1, 4], np.int32),
        np.ones(2, np.float32),
        *sampler.chosen(np.array([0, 1], np.int32)),
    )
    cpu = torch.device("cpu")
    hidden = sampler.tables(cpu).false_negatives(batch.indexed(np.arange(5, dtype=np.int32), cpu))
    # u has a and b, and d reads like the positive b; v has c, and e is the positive itself.
    assert hidden.tolist() == [[True, True, False, True, False], [False, False, True, False, True]]


def test_contexts_are_placed_among_the_candidates() -> None:
    batch = ContextBatch(
        np.array([4, 7], np.int32),
        np.array([[-1, 30], [20, 10]], np.int32),
        np.array([10, 40], np.int32),
        np.array([0.5, 0.25], np.float32),
        np.array([7, 4, 4, 9], np.int32),
        np.array([30, 40, 99, 10], np.int32),
    )
    indexed = batch.indexed(np.array([10, 20, 30, 40], np.int32), torch.device("cpu"))
    assert indexed.candidates.tolist() == [10, 20, 30, 40]
    assert indexed.user.tolist() == [0, 1]
    assert indexed.context.tolist() == [[4, 2], [1, 0]]
    assert indexed.positive.tolist() == [0, 3]
    assert indexed.weight.tolist() == [0.5, 0.25]
    # User 4 chose candidate 3, user 7 candidate 2; 99 is no candidate, 9 no user of these contexts.
    assert indexed.chosen.tolist() == [0 * 4 + 3, 1 * 4 + 2, 2 * 4]
    assert indexed.members().tolist() == [[0, 0, 1, 0], [1, 1, 0, 0]]


def test_the_contexts_of_a_batch_are_divided_among_processes(dataset: Dataset) -> None:
    batch = next(sampler_of(dataset).batches(1, 8, seed=3))
    parts = [batch.part(rank, 3) for rank in range(3)]
    assert sum(len(part.user) for part in parts) == len(batch.user)
    for rank, part in enumerate(parts):
        for number in range(len(part.user)):
            place = rank + 3 * number
            assert part.user[number] == batch.user[place]
            assert part.positive[number] == batch.positive[place]
            assert np.array_equal(part.context[number], batch.context[place])
            assert part.weight[number] == batch.weight[place]


def test_batches_draw_from_all_positions_that_can_be_predicted(dataset: Dataset) -> None:
    """The packed positions give what a draw from a list of them gives."""
    events, texts = dataset.events, text_ids(dataset.catalogue.texts)
    end = events.offsets[1:] - 1
    sampler = ContextSampler(events, end, dataset.kind_weights, texts, 3, 2)
    every = [
        place
        for user in range(events.users)
        for place in range(events.offsets[user] + 1, end[user])
        if any(
            texts[events.item[before]] != texts[events.item[place]]
            for before in range(max(place - 3, events.offsets[user]), place)
        )
    ]
    assert len(sampler) == len(every)
    assert sampler.positions.at(np.arange(len(every))).tolist() == every
    drawn = np.random.default_rng(5).choice(every, size=16)
    batch = next(sampler.batches(1, 16, seed=5))
    # In a piece of two events the last is predicted, if the one before it has another text.
    other = [p for p in drawn if texts[events.item[p - 1]] != texts[events.item[p]]]
    assert batch.positive.tolist() == events.item[other].tolist()


def test_of_a_long_history_the_newest_items_are_no_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [("u", item, "purchase", n) for n, item in enumerate("abcde")]
    sampler = sampler_of(make_dataset(rows, list("abcde")))
    monkeypatch.setattr(contexts, "MASKED", 2)
    owners, items = sampler.chosen(np.zeros(1, np.int32))
    assert owners.tolist() == [0, 0]
    assert items.tolist() == [3, 4]
