"""What would have to change: every claim holds when it is carried out, and nothing that works is denied."""

from __future__ import annotations

from copy import copy
from dataclasses import replace

import numpy as np
import pytest

from features.data.dataset import Dataset, FloatArray
from ranking.insight.changes import BUDGETS, STRENGTHS, Kind, boosted_by, longer
from ranking.insight.counterfactuals import Outcome, with_quotas
from ranking.insight.explanation import Explanation, explain_item
from ranking.insight.obstacles import Rule
from ranking.insight.question import Clause, Question
from ranking.recommender import Recommender
from ranking.rerank.rules import Boost, Cap, Pin, Rules
from ranking.scoring.novelty import Novelty
from ranking.types import History
from tests.ranking.insight.test_trace import varied
from tests.ranking.requests import ITEMS
from tests.synthetic import request_of

KINDS = ["purchase", "click"]


def place(recommender: Recommender, question: Question) -> int | None:
    [answer] = recommender.recommend([question.request])
    listed = [item.row for item in answer.items]
    return listed.index(question.row) + 1 if question.row in listed else None


def outcome_of(found: Explanation, kind: Kind) -> Outcome | None:
    return next((o for o in found.changes.outcomes if o.change.kind is kind), None)


def test_every_claim_holds(recommender: Recommender, dataset: Dataset, text_vectors: FloatArray) -> None:
    kinds = set()
    for question in varied(dataset, text_vectors, 120):
        found = explain_item(recommender, question, KINDS)
        before = place(recommender, question)
        assert before == found.trace.place
        for outcome in found.changes.outcomes:
            change = outcome.change
            assert change.question is not None
            assert place(with_quotas(recommender, change.config), change.question) == outcome.place
            kinds.add(change.kind)
            if before is None:
                assert outcome.place is not None
            else:
                assert outcome.place is None or outcome.place > before
        if found.changes.lifted_place is not None:
            assert found.changes.outcomes == ()
    assert {Kind.k, Kind.boost, Kind.quota, Kind.companion, Kind.without_event, Kind.cap} <= kinds


def test_the_smallest_length_and_strength_are_found(recommender: Recommender, dataset: Dataset) -> None:
    request = request_of(dataset, 2, k=5)
    [long] = recommender.recommend([replace(request, k=20)])
    for wanted in (7, 12, 18):
        question = Question(request, long.items[wanted - 1].row)
        found = explain_item(recommender, question, KINDS)
        length = outcome_of(found, Kind.k)
        assert length is not None
        assert (length.change.value, length.place) == (wanted, wanted)
        assert place(recommender, longer(question, wanted - 1)) is None
        boost = outcome_of(found, Kind.boost)
        assert boost is not None
        itself = np.arange(ITEMS) == question.row
        for strength in (*STRENGTHS, boost.change.value - 0.01):
            if strength <= 0:
                continue
            inside = place(recommender, boosted_by(question, Boost(itself, strength))) is not None
            assert inside == (strength >= boost.change.value)


def test_a_rule_that_alone_keeps_an_item_out_is_all_that_is_lifted(
    recommender: Recommender, dataset: Dataset
) -> None:
    request = request_of(dataset, 2, k=5)
    [plain] = recommender.recommend([request])
    best = plain.items[2].row
    refused = np.ones(ITEMS, dtype=np.bool_)
    refused[best] = False
    asked = Question(request, best).within(
        (Clause("all", np.ones(ITEMS, np.bool_)), Clause("but one", refused))
    )
    found = explain_item(recommender, asked, KINDS)
    assert [(o.rule, o.detail) for o in found.changes.lifted] == [(Rule.filter, "but one")]
    assert found.changes.lifted_place == 3
    assert found.changes.tried == 1


def test_where_nothing_works_that_is_the_answer(recommender: Recommender, dataset: Dataset) -> None:
    hidden = np.zeros(ITEMS, dtype=np.bool_)
    hidden[7] = True
    deleted = copy(recommender)
    deleted.hidden = hidden
    found = explain_item(deleted, Question(request_of(dataset, 0), 7), KINDS)
    assert not found.changes.liftable
    assert found.changes.outcomes == ()
    assert found.trace.lost is not None


def test_rules_of_others_are_among_the_changes(recommender: Recommender, dataset: Dataset) -> None:
    request = request_of(dataset, 9, k=5)
    [plain] = recommender.recommend([replace(request, k=12)])
    order = [item.row for item in plain.items]
    codes = np.full(ITEMS, -1, np.int32)
    codes[[order[0], order[1]]] = 0
    capped = Question(replace(request, rules=Rules(caps=(Cap(codes, 1),))), order[1], caps=("brand",))
    found = outcome_of(explain_item(recommender, capped, KINDS), Kind.cap)
    assert found is not None
    assert (found.change.value, found.change.name, found.place) == (2, "brand", 2)
    pushed = Question(replace(request, rules=Rules(pins=(Pin(order[9], 1),))), order[4])
    pin = outcome_of(explain_item(recommender, pushed, KINDS), Kind.pin)
    assert pin is not None
    assert (pin.change.row, pin.place) == (order[9], 5)
    others = np.isin(np.arange(ITEMS), order[5:10])
    demoted = Question(
        replace(request, rules=Rules(boosts=(Boost(others, 1.0),))), order[0], boosts=("sale",)
    )
    boost = outcome_of(explain_item(recommender, demoted, KINDS), Kind.other_boost)
    assert boost is not None
    assert (boost.change.name, boost.place) == ("sale", 1)


def test_novelty_is_tried_for_items_without_training_events(
    recommender: Recommender, dataset: Dataset
) -> None:
    [long] = recommender.recommend([replace(request_of(dataset, 2), k=20)])
    row = long.items[11].row
    promoted = promote(recommender, row)
    question = Question(request_of(dataset, 2, k=5), row)
    before = place(promoted, question)
    found = outcome_of(explain_item(promoted, question, KINDS), Kind.novelty)
    worked = [
        b
        for b in BUDGETS
        if place(promoted, replace(question, request=replace(question.request, novelty=b))) is not None
    ]
    assert before is None
    assert found is not None
    assert found.change.value == worked[0]
    plain = explain_item(recommender, question, KINDS)
    assert outcome_of(plain, Kind.novelty) is None


def promote(recommender: Recommender, row: int) -> Recommender:
    """Return the model with a table of novelty offsets, and one item without training events."""
    other = copy(recommender)
    other.untrained = np.arange(ITEMS) == row
    other.novelty = Novelty((0.0, 0.02, 1.0), (0.0, 0.0, 500.0))
    return other


def test_deleting_an_event_is_what_its_effect_says(recommender: Recommender, dataset: Dataset) -> None:
    request = request_of(dataset, 5)
    [plain] = recommender.recommend([request])
    question = Question(request, plain.items[3].row)
    found = explain_item(recommender, question, KINDS)
    history = request.history
    assert [e.row for e in found.effects] == list(dict.fromkeys(history.items[::-1].tolist()))
    for effect in found.effects:
        keep = history.items != effect.row
        assert effect.events == int((~keep).sum())
        shorter = History(history.items[keep], history.kinds[keep], history.times[keep])
        [answer] = recommender.recommend([replace(request, history=shorter)])
        listed = {item.row: (n, item.score) for n, item in enumerate(answer.items, start=1)}
        assert effect.place == listed.get(question.row, (None, 0))[0]
        if question.row in listed:
            own = plain.items[3].score
            assert effect.points == pytest.approx(own - listed[question.row][1], abs=2e-4)
