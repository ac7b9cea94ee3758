"""A thousand lists, and every reason that they give held against the shop's events and texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from encoders.text.text_encoder import TextEncoder
from features.data import schema
from features.data.dataset import Dataset
from features.text.words import folded, singular
from ranking.live.snapshot import LiveVersion
from ranking.live.updates import LiveItems
from ranking.types import RecommendedItem, Request
from tests.bundles import make_bundle
from tests.synthetic import EMPTY, make_dataset, make_factors, make_world, request_of

KINDS = {"purchase": 1.0, "rating": 0.7, "view": 0.3, "impression": 0.1}
SAID = ("", "trail boots", "a paper for the pen", "guitar Acme", "rattle no7", "zzyzx", "Borealis roses")
LISTS = 1000


@pytest.fixture(scope="module")
def shop() -> Dataset:
    """The synthetic shop, whose shoppers do four kinds of things."""
    world = make_world(users=72)
    rng = np.random.default_rng(3)
    rows = [
        (user, item, str(rng.choice(list(KINDS), p=[0.4, 0.2, 0.2, 0.2])), time)
        for user, item, _, time in world.events.iter_rows()
    ]
    return make_dataset(rows, world.dataset().catalogue.frame, KINDS)


def questions(dataset: Dataset, version: LiveVersion) -> Iterator[tuple[bool, Request]]:
    """Lists and searches of everybody and of nobody, with and without words."""
    vectors = {said: version.encode_queries([said])[0] for said in SAID if said}
    users = len(dataset.user_ids)
    for number in range(LISTS):
        said = SAID[number % len(SAID)]
        known = number % 9 != 0
        request = request_of(dataset, number % users) if known else Request(EMPTY, 1_800_000_000, 10)
        request = replace(request, explain=True, exclude_seen=number % 4 == 0, k=10 + number % 3)
        yield bool(said) and number % 2 == 0, replace(request, query_text=said, intent=vectors.get(said))


def neighbours(dataset: Dataset) -> set[tuple[int, int]]:
    """Pairs of items that one shopper had to do with."""
    events = dataset.events
    found = set()
    for start, stop in zip(events.offsets[:-1], events.offsets[1:], strict=True):
        items = set(events.item[start:stop].tolist())
        found |= {(a, b) for a in items for b in items if a != b}
    return found


def test_every_reason_of_a_thousand_lists_is_true(shop: Dataset, encoder: TextEncoder) -> None:
    live = LiveItems(make_bundle(shop, encoder, factors=make_factors(shop)), 10)
    version, kinds, pairs = live.current, list(KINDS), neighbours(shop)
    arrays = version.recommender.recommender.arrays
    texts, catalogue = version.text_vectors, shop.catalogue
    usual = np.quantile((texts @ texts.T)[np.triu_indices(len(texts), 1)], 0.99)
    sold = set(shop.events.item.tolist())
    told: dict[str, int] = {}

    def check(request: Request, item: RecommendedItem) -> None:
        history, row = request.history, item.row
        done = {kinds[kind] for kind in history.kinds[history.items == row].tolist()}
        for reason in item.reasons:
            told[reason.kind] = told.get(reason.kind, 0) + 1
            because = reason.because
            if reason.kind in ("bought_before", "chosen_before", "viewed_before"):
                assert because == row
                name = {"bought_before": "purchase", "chosen_before": "rating", "viewed_before": "view"}
                assert name[reason.kind] in done
            elif reason.kind == "matches_intent":
                assert request.intent is not None
                said = {singular(word) for word in re.findall(r"[a-z0-9]+", request.query_text.lower())}
                has = {singular(word) for word in folded(catalogue.texts[row])}
                assert said & has or texts[row] @ request.intent >= usual
            elif reason.kind == "popular":
                assert row in sold
            else:
                assert because is not None
                assert because != row
                assert because in history.items
                if reason.kind == "goes_with":
                    assert (because, row) in pairs
                elif reason.kind == "reads_like":
                    assert arrays.text_units[because] @ arrays.text_units[row] > 0.6
                else:
                    assert reason.kind == "for_you"

    asked = list(questions(shop, version))
    searches = [request for search, request in asked if search]
    lists = [request for search, request in asked if not search]
    answers = [*version.recommender.search(searches), *version.recommender.recommend(lists)]
    assert len(answers) == LISTS
    for request, answer in zip([*searches, *lists], answers, strict=True):
        for item in answer.items:
            check(request, item)
    own = {"bought_before", "chosen_before", "viewed_before", "goes_with", "reads_like", "for_you"}
    assert own | {"matches_intent", "popular"} == told.keys()
    assert schema.IMPRESSION in {kinds[kind] for kind in shop.events.kind.tolist()}


def test_who_fits_the_words_is_told_so(shop: Dataset, encoder: TextEncoder) -> None:
    """The other way round: what has all the words is said to match them."""
    version = LiveItems(make_bundle(shop, encoder), 10).current
    vector = version.encode_queries(["guitar Acme"])[0]
    request = Request(EMPTY, 1_800_000_000, 60, query_text="guitar Acme", intent=vector, explain=True)
    [answer] = version.recommender.search([request])
    for item in answer.items:
        has = set(folded(shop.catalogue.texts[item.row]))
        if {"guitar", "acme"} <= has:
            assert "matches_intent" in [reason.kind for reason in item.reasons]
