"""Traces: what they say of each stage is true, by other means than those that say it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.data.dataset import Dataset, FloatArray
from ranking.insight.obstacles import Rule
from ranking.insight.question import Question
from ranking.insight.source_places import source_places
from ranking.insight.trace import Stage, Trace, trace
from ranking.recommender import Recommender
from ranking.rerank.rules import Boost, Cap, Pin, Rules
from ranking.stages import Stages
from ranking.types import Request
from tests.ranking.requests import ITEMS
from tests.synthetic import EMPTY, request_of


@pytest.fixture(params=["ranked", "text only"])
def either(request: pytest.FixtureRequest, recommender: Recommender, text_only: Recommender) -> Recommender:
    return recommender if request.param == "ranked" else text_only


def varied(dataset: Dataset, text_vectors: FloatArray, count: int) -> list[Question]:
    """Questions of every sort."""
    rng, asked = np.random.default_rng(1), list[Question]()
    codes = (np.arange(ITEMS) % 4).astype(np.int32)
    for n in range(count):
        request, row = request_of(dataset, n % 60, k=int(rng.integers(3, 12))), int(rng.integers(ITEMS))
        match n % 8:
            case 1:
                request = replace(request, exclude_seen=True)
            case 2:
                request = replace(request, exclude=rng.permutation(ITEMS)[:20].astype(np.int32))
            case 3:
                request = replace(request, allowed=rng.random(ITEMS) < 0.5)
            case 4:
                request = replace(request, history=EMPTY, intent=text_vectors[n % ITEMS])
            case 5:
                request = replace(request, diversity=0.6)
            case 6:
                rules = Rules(caps=(Cap(codes, 2),), pins=(Pin(3, 2),), boosts=(Boost(codes == 1, 0.3),))
                request = replace(request, rules=rules, diversity=0.3 if n % 3 else 0.0)
            case 7:
                rules = Rules(caps=(Cap(codes, 1),), exploration=0.3, seed=n)
                request = replace(request, rules=rules, k=20 if n % 3 else 4)
        asked.append(Question(request, row))
    return asked


def stages_of(recommender: Recommender, request: Request) -> list[Stages]:
    seen: list[Stages] = []
    recommender.recommend([request], seen.append)
    return seen


def test_watching_does_not_change_a_list(
    either: Recommender, dataset: Dataset, text_vectors: FloatArray
) -> None:
    requests = [question.request for question in varied(dataset, text_vectors, 48)]
    seen: list[Stages] = []
    assert repr(either.recommend(requests, seen.append)) == repr(either.recommend(requests))
    assert len(seen[0].slates) == len(requests)


def test_traces_are_true(either: Recommender, dataset: Dataset, text_vectors: FloatArray) -> None:
    lost = set()
    for question in varied(dataset, text_vectors, 160):
        found = trace(either, question)
        lost.add(found.lost)
        check(either, question, found)
    assert {None, Stage.limits, Stage.sources, Stage.ranking, Stage.rerank} <= lost


def check(recommender: Recommender, question: Question, found: Trace) -> None:
    """Compare a trace with the list and with arrays that it was not made from."""
    request, row = question.request, question.row
    [answer] = recommender.recommend([request])
    listed = [item.row for item in answer.items]
    assert [item.row for item in found.items] == listed
    assert found.place == (listed.index(row) + 1 if row in listed else None)
    assert (found.lost is None) == (row in listed)
    pinned = any(pin.row == row for pin in question.rules.pins)
    out = (
        (request.allowed is not None and not request.allowed[row])
        or row in request.exclude
        or (request.exclude_seen and row in request.history.items)
    )
    if not pinned and not question.rules.pins:
        assert bool(found.obstacles) == out
    if pinned or question.rules.pins:
        return
    [*_, last] = stages_of(recommender, request)
    if found.rounds > 1:
        return
    rows, scores = last.ranked.candidates.rows[0], last.ranked.scores[0]
    assert found.candidate == bool((rows == row).any())
    for source in found.sources:
        proposed = last.retrieved.proposals.get(source.source)
        inside = [] if proposed is None else proposed[0].tolist()
        assert (row in inside) == (source.proposes and not found.obstacles)
        if row in inside:
            assert source.place == inside.index(row) + 1
    if found.candidate:
        better = [
            s
            for r, s in zip(rows, scores, strict=True)
            if r >= 0 and (-s, r) < (-own(rows, scores, row), row)
        ]
        assert found.standing.place == len(better) + 1
        assert found.steps[-1].place == found.place or found.place is None
    if found.lost is Stage.sources:
        assert not out
        assert row not in rows
    if found.lost is Stage.ranking:
        assert found.standing.place > request.k
        assert found.standing.head_place > request.k or request.intent is not None
    if found.lost is Stage.rerank:
        assert any(step.place is not None and step.place <= request.k for step in found.steps[:-1])


def own(rows: np.ndarray, scores: np.ndarray, row: int) -> float:
    return float(scores[np.flatnonzero(rows == row)[0]])


def test_the_place_beyond_a_quota_is_that_of_an_exhaustive_search(
    recommender: Recommender, dataset: Dataset
) -> None:
    [stages] = stages_of(recommender, request_of(dataset, 4))
    products = recommender.arrays.item_vectors @ stages.users.tower[0]
    factors = recommender.arrays.factor_vectors @ stages.users.factors[0]
    popular = recommender.indexes.by_popularity.tolist()
    beyond = 0
    for row in range(ITEMS):
        places = {found.source: found for found in source_places(recommender, stages, row)}
        assert places["user_vector"].place == int((products > products[row]).sum()) + 1
        assert places["co_purchase"].place == int((factors > factors[row]).sum()) + 1
        assert places["popular"].place == popular.index(row) + 1
        beyond += not places["user_vector"].proposes
        assert places["intent"].reason == "the request has no text query"
        bought = row in stages.filtered.batch.items
        assert (places["repeat"].place is not None) == bought
        if not bought:
            assert places["repeat"].reason == "the history has no event of it"
    assert beyond == ITEMS - recommender.config.user_vector


def test_an_item_that_is_kept_out_is_shown_as_if_it_alone_were_allowed(
    recommender: Recommender, dataset: Dataset
) -> None:
    request = request_of(dataset, 4)
    [plain] = recommender.recommend([request])
    first = plain.items[0].row
    found = trace(recommender, Question(replace(request, exclude=np.array([first], np.int32)), first))
    assert found.lost is Stage.limits
    assert [o.rule for o in found.obstacles] == [Rule.excluded]
    assert found.standing.place == 1
    assert found.standing.score == pytest.approx(plain.items[0].score, abs=1e-4)
    assert any(source.proposes for source in found.sources)


def test_each_rule_moves_the_item_that_it_moves(recommender: Recommender, dataset: Dataset) -> None:
    request = request_of(dataset, 9, k=5)
    [plain] = recommender.recommend([request])
    order = [item.row for item in plain.items]
    last = np.zeros(ITEMS, dtype=np.bool_)
    last[order[4]] = True
    codes = np.full(ITEMS, -1, np.int32)
    codes[[order[0], order[1]]] = 0
    other = int(next(row for row in range(ITEMS) if row not in order))
    rules = Rules(caps=(Cap(codes, 1),), pins=(Pin(other, 1),), boosts=(Boost(last, 1.0),))
    found = trace(recommender, Question(replace(request, rules=rules), order[1]))
    # by score 2nd; behind the boosted item 3rd; its brand is full after the first; nothing can follow that
    assert [(step.rule, step.place) for step in found.steps] == [
        ("score", 2), ("boosts", 3), ("caps", None), ("pins", None),
    ]  # fmt: skip
    assert found.steps[1].instead == order[0]
    assert found.steps[2].instead == order[2]
    assert found.lost is Stage.rerank
    boosted = trace(recommender, Question(replace(request, rules=rules), order[4]))
    assert [(step.rule, step.place) for step in boosted.steps] == [
        ("score", 5), ("boosts", 1), ("caps", 1), ("pins", 2),
    ]  # fmt: skip
    assert boosted.steps[-1].instead == other
    pinned = trace(recommender, Question(replace(request, rules=rules), other))
    assert pinned.pinned
    assert pinned.place == 1
    later = Rules(pins=(Pin(other, 50),))
    waiting = trace(recommender, Question(replace(request, rules=later), other))
    assert waiting.place is None
    assert waiting.lost is Stage.rerank
