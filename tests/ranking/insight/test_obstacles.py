"""Rules that keep an item out: each is named, and lifting what is named lets the item in."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.data.dataset import Dataset
from ranking.insight.obstacles import Obstacle, Rule, is_pinned, obstacles, without
from ranking.insight.question import Clause, Question
from ranking.rerank.rules import Cap, Pin, Rules
from tests.ranking.requests import ITEMS
from tests.synthetic import request_of


def mask(*rows: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    found = np.zeros(ITEMS, dtype=np.bool_)
    found[list(rows)] = True
    return found


@pytest.fixture
def question(dataset: Dataset) -> Question:
    return Question(request_of(dataset, 0), 7)


def with_rules(question: Question, rules: Rules) -> Question:
    return replace(question, request=replace(question.request, rules=rules))


def test_nothing_keeps_an_item_out_of_a_plain_request(question: Question) -> None:
    assert obstacles(question, None) == ()
    assert without(question, ()) == question


def test_the_clauses_that_fail_are_named_and_lifted_alone(question: Question) -> None:
    clauses = (Clause("price < 5", mask(1, 7)), Clause("sale", mask(1, 2)), Clause("brand = 1", mask(3)))
    asked = question.within(clauses)
    np.testing.assert_array_equal(asked.request.allowed, mask())
    found = obstacles(asked, None)
    assert found == (Obstacle(Rule.filter, 1, "sale"), Obstacle(Rule.filter, 2, "brand = 1"))
    lifted = without(asked, found)
    assert lifted is not None
    assert [clause.text for clause in lifted.clauses] == ["price < 5"]
    np.testing.assert_array_equal(lifted.request.allowed, mask(1, 7))


def test_exclusion_and_seen_items(question: Question) -> None:
    row = int(question.request.history.items[0])
    exclude = np.array([row, 3], np.int32)
    asked = Question(replace(question.request, exclude=exclude, exclude_seen=True), row)
    found = obstacles(asked, None)
    assert [o.rule for o in found] == [Rule.excluded, Rule.seen]
    lifted = without(asked, found)
    assert lifted is not None
    assert lifted.request.exclude.tolist() == [3]
    assert not lifted.request.exclude_seen
    assert obstacles(lifted, None) == ()


def test_a_cap_that_pins_exhaust(question: Question) -> None:
    codes = np.full(ITEMS, -1, np.int32)
    codes[[5, 6, 7]] = 2
    rules = Rules(caps=(Cap(codes, 2), Cap(codes, 3)), pins=(Pin(5, 1), Pin(6, 4)))
    asked = replace(with_rules(question, rules), caps=("brand", "colour"))
    found = obstacles(asked, None)
    assert found == (Obstacle(Rule.cap, 0, "brand"),)
    lifted = without(asked, found)
    assert lifted is not None
    assert lifted.caps == ("colour",)
    assert [cap.limit for cap in lifted.rules.caps] == [3]
    # A deleted item is not pinned, so it does not count.
    assert obstacles(asked, mask(6)) == ()


def test_what_cannot_be_lifted(question: Question) -> None:
    assert obstacles(question, mask(7)) == (Obstacle(Rule.deleted),)
    assert without(question, (Obstacle(Rule.deleted),)) is None
    shown = with_rules(question, Rules(shown=np.array([7], np.int32), before=1))
    shown = replace(shown, request=replace(shown.request, exclude=np.array([7], np.int32)))
    assert obstacles(shown, None) == (Obstacle(Rule.shown),)
    assert without(shown, obstacles(shown, None)) is None


def test_a_pinned_item_passes_what_does_not_apply_to_pins(question: Question) -> None:
    row = int(question.request.history.items[0])
    asked = with_rules(replace(question, row=row), Rules(pins=(Pin(row, 3),)))
    asked = replace(asked, request=replace(asked.request, exclude_seen=True))
    assert is_pinned(asked, None)
    assert obstacles(asked, None) == ()
    refused = replace(asked, request=replace(asked.request, exclude=np.array([row], np.int32)))
    assert not is_pinned(refused, None)
    assert [o.rule for o in obstacles(refused, None)] == [Rule.excluded, Rule.seen]
