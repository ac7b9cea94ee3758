"""Rules through the whole Recommender: over pages, with narrow filters, with items that changed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conf.schema import CandidateConfig
from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset, FloatArray, IntArray
from ranking.catalogue.attribute_codes import ValueCodes
from ranking.catalogue.live_catalogue import ItemChange
from ranking.live.updates import LiveItems
from ranking.recommender import Recommender
from ranking.rerank.rules import Boost, Cap, Pin, Rules
from ranking.types import Recommendation, Request
from tests.bundles import make_bundle
from tests.synthetic import make_full_recommender, make_recommender, request_of

ITEMS = 60


@pytest.fixture(scope="module")
def recommender(dataset: Dataset, text_vectors: FloatArray) -> Recommender:
    return make_full_recommender(dataset, text_vectors)


def rows(answer: Recommendation) -> list[int]:
    return [item.row for item in answer.items]


def pages(recommender: Recommender, request: Request, rules: Rules, size: int) -> list[list[int]]:
    """Page through a list as the service does, until a page is short."""
    found: list[list[int]] = []
    while True:
        shown = np.array([row for page in found for row in page], dtype=np.int32)
        asked = replace(
            request,
            k=size,
            exclude=np.union1d(request.exclude, shown).astype(np.int32),
            rules=replace(rules, shown=shown, before=len(shown)),
        )
        [answer] = recommender.recommend([asked])
        found.append(rows(answer))
        if len(found[-1]) < size:
            return found


def brands(count: int) -> IntArray:
    return (np.arange(ITEMS) % count).astype(np.int32)


def test_empty_rules_change_nothing(recommender: Recommender, dataset: Dataset) -> None:
    for user in range(10):
        for diversity in (0.0, 0.5):
            request = replace(request_of(dataset, user, k=8), diversity=diversity, explain=True)
            plain, ruled = recommender.recommend([request, replace(request, rules=Rules())])
            assert plain == ruled


def test_a_cap_holds_over_all_pages_and_lets_everything_else_through(
    recommender: Recommender, dataset: Dataset
) -> None:
    codes = brands(4)
    found = pages(recommender, request_of(dataset, 0), Rules(caps=(Cap(codes, 3),)), 5)
    listed = sum(found, [])
    assert [len(page) for page in found] == [5, 5, 2]
    assert np.bincount(codes[listed]).tolist() == [3, 3, 3, 3]
    assert len(set(listed)) == 12


def test_a_value_that_owns_most_candidates_does_not_end_a_capped_list(
    dataset: Dataset, text_vectors: FloatArray
) -> None:
    few = make_recommender(dataset, text_vectors)
    few = Recommender(
        few.arrays, few.index, few.text_vectors,
        CandidateConfig(
            user_vector=3, item_to_item=3, text_neighbours=3, repeat=3, popular=3, co_purchase=0, new_items=0
        ),
        few.click_kinds,
    )  # fmt: skip
    request = replace(request_of(dataset, 1, k=6))
    first = rows(few.recommend([request])[0])
    codes = np.arange(ITEMS, dtype=np.int32)
    [plenty] = few.recommend([replace(request, k=3)])
    big = np.full(ITEMS, 0, dtype=np.int32)
    others = [row for row in range(ITEMS) if row not in first][-5:]
    big[others] = codes[others]
    [answer] = few.recommend([replace(request, rules=Rules(caps=(Cap(big, 1),)))])
    assert rows(answer)[0] == rows(plenty)[0]
    assert sorted(rows(answer)[1:]) == sorted(others)


def test_pins_come_with_scores_of_their_own_and_a_reason(recommender: Recommender, dataset: Dataset) -> None:
    request = replace(request_of(dataset, 2, k=6), explain=True)
    usual = rows(recommender.recommend([request])[0])
    far = next(row for row in range(ITEMS) if row not in usual)
    [answer] = recommender.recommend([replace(request, rules=Rules(pins=(Pin(far, 2),)))])
    item = answer.items[1]
    assert (item.row, item.source, item.reasons[0].kind) == (far, "pinned", "pinned")
    assert 0 < item.p_click < 1
    assert 0 < item.p_purchase < 1
    assert [r for r in rows(answer) if r != far] == usual[:5]


def test_a_pin_does_not_disturb_the_requests_beside_it(recommender: Recommender, dataset: Dataset) -> None:
    plain = [request_of(dataset, user, k=7) for user in range(6)]
    pinned = replace(plain[3], rules=Rules(pins=(Pin(5, 1), Pin(6, 3))))
    beside = recommender.recommend([*plain[:3], pinned, *plain[4:]])
    alone = [recommender.recommend([request])[0] for request in (*plain[:3], pinned, *plain[4:])]
    assert beside == alone


def test_seen_items_can_be_pinned_but_filtered_and_excluded_ones_cannot(
    recommender: Recommender, dataset: Dataset
) -> None:
    request = replace(request_of(dataset, 4, k=5), exclude_seen=True)
    seen = int(request.history.items[0])
    others = [row for row in range(ITEMS) if row not in request.history.items][:2]
    pins = (Pin(seen, 1), Pin(others[0], 2), Pin(others[1], 3))
    allowed = np.ones(ITEMS, dtype=np.bool_)
    allowed[others[0]] = False
    exclude = np.array([others[1]], dtype=np.int32)
    [answer] = recommender.recommend(
        [replace(request, allowed=allowed, exclude=exclude, rules=Rules(pins=pins))]
    )
    assert rows(answer)[0] == seen
    assert not set(others) & set(rows(answer))


def test_all_rules_hold_over_pages_of_a_narrow_catalogue(recommender: Recommender, dataset: Dataset) -> None:
    codes = brands(5)
    allowed = np.arange(ITEMS) < 30
    rules = Rules(
        caps=(Cap(codes, 4),),
        pins=(Pin(29, 1), Pin(28, 7), Pin(45, 3), Pin(27, 500)),
        boosts=(Boost(np.arange(ITEMS) % 2 == 0, 0.3),),
        exploration=0.25,
        seed=11,
    )
    found = pages(recommender, replace(request_of(dataset, 3), allowed=allowed), rules, 4)
    listed = sum(found, [])
    assert len(listed) == len(set(listed)) == 20
    assert (listed[0], listed[6], listed[-1]) == (29, 28, 27)
    assert max(listed) < 30
    assert np.bincount(codes[listed]).tolist() == [4] * 5


def test_boosts_move_only_what_was_found(recommender: Recommender, dataset: Dataset) -> None:
    request = request_of(dataset, 5, k=30)
    usual = rows(recommender.recommend([request])[0])
    even = Boost(np.arange(ITEMS) % 2 == 0, 1.0)
    [answer] = recommender.recommend([replace(request, rules=Rules(boosts=(even,)))])
    parity = [row % 2 for row in rows(answer)]
    assert parity == sorted(parity)
    assert [r for r in rows(answer) if r % 2 == 0][:5] == [r for r in usual if r % 2 == 0][:5]


def test_explored_items_say_so(recommender: Recommender, dataset: Dataset) -> None:
    request = replace(request_of(dataset, 6, k=10), explain=True, rules=Rules(exploration=0.2, seed=5))
    [answer] = recommender.recommend([request])
    explored = [item for item in answer.items if item.source == "exploration"]
    assert len(explored) == 2
    assert all(item.reasons[0].kind == "exploration" for item in explored)


def test_codes_follow_items_that_change(dataset: Dataset, encoder: TextEncoder) -> None:
    live, codes = LiveItems(make_bundle(dataset, encoder), 10), ValueCodes()
    before = codes.of(live.current.catalogue, "brand")
    base = dataset.catalogue.frame["brand"].to_list()
    assert all((before[a] == before[b]) == (base[a] == base[b]) for a in range(20) for b in range(20))
    ids = dataset.catalogue.ids
    changes = [
        ItemChange("n1", {"title": "new one", "brand": base[3]}),
        ItemChange("n2", {"title": "new two", "brand": "Unheard Of"}),
        ItemChange("n3", {"title": "new three"}),
        ItemChange(ids[0], {"title": "same shelf", "brand": "Unheard Of"}),
    ]
    state = live.current
    for change in changes:
        state = live.apply(live.plan([change]))
    assert codes.cached(state.catalogue, "brand") is None
    after = codes.of(state.catalogue, "brand")
    assert codes.cached(state.catalogue, "brand") is after
    row = {i: state.catalogue.row(i) for i in ("n1", "n2", "n3", ids[0])}
    assert after[row["n1"]] == before[3]
    assert after[row["n2"]] == after[row[ids[0]]] not in before
    assert after[row["n3"]] == -1
    assert (after[1:ITEMS] == before[1:]).all()


def test_an_item_deleted_in_the_meantime_is_not_pinned(dataset: Dataset, encoder: TextEncoder) -> None:
    live = LiveItems(make_bundle(dataset, encoder), 10)
    request = replace(request_of(dataset, 0, k=5), rules=Rules(pins=(Pin(7, 1),)))
    assert rows(live.current.recommender.recommend([request])[0])[0] == 7
    live.apply(live.plan([ItemChange(dataset.catalogue.ids[7], None)]))
    assert 7 not in rows(live.current.recommender.recommend([request])[0])
