"""Explanations in words: what each sentence says is what the numbers say."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.data.dataset import Dataset
from ranking.insight.changes import Change, Kind
from ranking.insight.explanation import explain_item
from ranking.insight.obstacles import Obstacle, Rule
from ranking.insight.question import Clause, Question
from ranking.insight.source_places import SourcePlace
from ranking.insight.words import (
    LOST,
    PASSED,
    UNREACHED,
    Names,
    change_words,
    in_words,
    lifted_words,
    obstacle_words,
    source_words,
)
from ranking.recommender import Recommender
from ranking.rerank.rules import Cap, Rules
from tests.ranking.requests import ITEMS
from tests.synthetic import request_of

KINDS = ["purchase", "click"]
NAMES = Names([f"i{row}" for row in range(ITEMS)], lambda row: f"Item {row}")


def test_a_listed_item(recommender: Recommender, dataset: Dataset) -> None:
    request = request_of(dataset, 3, k=5)
    [plain] = recommender.recommend([request])
    row = plain.items[1].row
    words = in_words(explain_item(recommender, Question(request, row), KINDS), NAMES)
    assert words.headline == f"“Item {row}” (i{row}) is at place 2 of 5."
    assert words.final == "In the list, at place 2 of 5."
    assert [stage.outcome for stage in words.stages] == [PASSED] * 3
    assert words.stages[0].lines == ("Allowed: nothing in the request keeps it out.",)
    assert f"Score {plain.items[1].score:.4f}: place 2 of" in words.stages[2].lines[0]


def test_a_filtered_item(recommender: Recommender, dataset: Dataset) -> None:
    request = request_of(dataset, 3, k=5)
    [plain] = recommender.recommend([request])
    row, passes = plain.items[1].row, np.ones(ITEMS, dtype=np.bool_)
    passes[row] = False
    asked = Question(request, row).within((Clause("price < 3", passes),))
    words = in_words(explain_item(recommender, asked, KINDS), NAMES)
    assert words.headline == f"“Item {row}” (i{row}) is not in this list of 5."
    assert words.stages[0].lines == (
        "It does not pass the filter: price < 3",
        "What follows is as if it alone were allowed.",
    )
    assert words.stages[2].lines[0] == "Were it allowed:"
    assert [stage.outcome for stage in words.stages] == [LOST, UNREACHED, UNREACHED]
    assert words.final == ("Lost at the stage “Limits”: a rule keeps it out before anything is retrieved.")
    assert [(change.text, change.place) for change in words.changes] == [
        ("without the filter's “price < 3”", 2)
    ]


def test_an_item_that_a_cap_moves_out(recommender: Recommender, dataset: Dataset) -> None:
    request = request_of(dataset, 9, k=5)
    [plain] = recommender.recommend([request])
    order = [item.row for item in plain.items]
    codes = np.full(ITEMS, -1, np.int32)
    codes[order[:2]] = 0
    asked = Question(replace(request, rules=Rules(caps=(Cap(codes, 1),))), order[1], caps=("brand",))
    words = in_words(explain_item(recommender, asked, KINDS), NAMES)
    stage = words.stages[-1]
    assert (stage.name, stage.outcome) == ("rerank", LOST)
    assert stage.lines == (
        f"After caps: outside the list, before it place 2. There is {NAMES.of(order[2])} now.",
    )
    assert ("with a cap of 2 on brand", 2) in [(change.text, change.place) for change in words.changes]


def test_nothing_works(recommender: Recommender, dataset: Dataset) -> None:
    found = explain_item(recommender, Question(request_of(dataset, 3, k=2), 55), KINDS)
    none = replace(found, changes=replace(found.changes, outcomes=(), tried=40, pinned=1, lifted_place=None))
    words = in_words(none, NAMES)
    assert found.trace.place is None
    assert words.changes == ()
    assert words.unchanged.startswith("None of the 40 lists that were made with a single change has it")
    assert words.unchanged.endswith("A pin puts it at place 1.")
    gone = replace(none, changes=replace(none.changes, liftable=False))
    assert in_words(gone, NAMES).unchanged == "No change of the request brings it in."


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (Change(Kind.k, 25), "with a list of 25 (k=25)"),
        (Change(Kind.novelty, 0.01), "with novelty=0.01"),
        (Change(Kind.diversity, 0.3), "with diversity=0.3"),
        (Change(Kind.intent), "without the text query"),
        (Change(Kind.cap, 0, "brand"), "without the cap on brand"),
        (Change(Kind.pin, row=4), "without the pin of “Item 4” (i4)"),
        (Change(Kind.other_boost, name="price > 2"), "without the boost of price > 2"),
        (Change(Kind.exploration), "without exploration"),
        (Change(Kind.boost, 0.3), "with a boost of 0.3 for it"),
        (Change(Kind.quota, 400, "item_to_item"), "with candidates.item_to_item=400"),
        (Change(Kind.quota, 9, "popular", boost=0.2), "with candidates.popular=9 and a boost of 0.2 for it"),
        (Change(Kind.event, name="click"), "if the shopper clicks on it"),
        (Change(Kind.companion, name="purchase", row=6), "if the shopper buys “Item 6” (i6)"),
        (Change(Kind.companion, name="rating", row=6), "if the shopper has a rating of “Item 6” (i6)"),
        (Change(Kind.without_event, row=6), "had the shopper not chosen “Item 6” (i6)"),
    ],
)
def test_changes(change: Change, text: str) -> None:
    assert change_words(change, NAMES) == text


def test_sources() -> None:
    inside = SourcePlace("popular", "popular", 100, 7)
    assert source_words(inside) == "popular (popular now): proposed at place 7 of at most 100."
    beyond = SourcePlace("user_vector", "user_vector", 200, 1431)
    assert source_words(beyond).endswith("at place 1,431, beyond its quota of 200.")
    never = SourcePlace("own", None, 20, None, "it does not propose this item")
    assert source_words(never) == "own: no, it does not propose this item."


def test_rules() -> None:
    assert obstacle_words(Obstacle(Rule.cap, 0, "brand")).startswith("The cap on brand is exhausted")
    assert lifted_words(Obstacle(Rule.seen)) == "with exclude_seen=false"
    assert all(obstacle_words(Obstacle(rule)) for rule in Rule)


def test_an_item_without_a_title_is_named_by_its_id() -> None:
    assert Names(["a"], lambda _: "a").of(0) == "a"
