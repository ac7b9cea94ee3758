"""Rules over the wire, on a real bundle whose items change."""

from __future__ import annotations

from collections import Counter
from typing import Any

import grpc
import pytest

from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset
from ranking.live.updates import LiveItems
from shelfwise_client import Client, Item, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.bundles import make_bundle
from tests.serving.conftest import Harness, Servers


@pytest.fixture
def shop(servers: Servers, dataset: Dataset, encoder: TextEncoder) -> Harness:
    return servers.start(live=LiveItems(make_bundle(dataset, encoder), 100))


@pytest.fixture
def brands(dataset: Dataset) -> dict[str, str]:
    frame = dataset.catalogue.frame
    return dict(zip(frame["item_id"].to_list(), frame["brand"].to_list(), strict=True))


def rules(**parts: Any) -> pb.ListRules:
    return pb.ListRules(**parts)


def pin(item_id: str, position: int) -> pb.Pin:
    return pb.Pin(item_id=item_id, position=position)


def ask(server: Harness, given: pb.ListRules, **fields: Any) -> pb.RecommendResponse:
    response: pb.RecommendResponse = server.stub.Recommend(
        pb.RecommendRequest(rules=given, **fields), timeout=10
    )
    return response


def pages(server: Harness, given: pb.ListRules, size: int, **fields: Any) -> list[pb.RecommendedItem]:
    """Read a list to its end."""
    items: list[pb.RecommendedItem] = []
    token = ""
    while True:
        response = ask(server, given, page_size=size, page_token=token, **fields)
        items += response.items
        token = response.next_page_token
        if not token:
            return items


def ids(items: list[pb.RecommendedItem]) -> list[str]:
    return [item.item_id for item in items]


def session(*items: str) -> pb.SessionContext:
    return pb.SessionContext(events=[pb.SessionEvent(item_id=i) for i in items])


@pytest.mark.parametrize("size", [3, 7, 50])
def test_a_cap_holds_over_pages_however_long_they_are(
    shop: Harness, brands: dict[str, str], size: int
) -> None:
    cap = pb.AttributeCap(attribute="brand", max_items=2)
    listed = pages(shop, rules(caps=[cap]), size, exclude_seen=False)
    counts = Counter(brands[i] for i in ids(listed))
    assert counts == {brand: 2 for brand in set(brands.values())}
    assert [item.list_position for item in listed] == list(range(1, len(listed) + 1))


def test_a_cap_knows_items_that_changed_between_pages(shop: Harness, brands: dict[str, str]) -> None:
    cap = rules(caps=[pb.AttributeCap(attribute="brand", max_items=1)])
    with Client(shop.address) as client:
        first = ask(shop, cap, page_size=1)
        shown = first.items[0].item_id
        other = next(brand for brand in brands.values() if brand != brands[shown])
        # The shown item changes its brand: now that one is used up, and the former is free again.
        client.upsert_items([Item(shown, {"title": "moved house", "brand": other})])
        rest = []
        token = first.next_page_token
        while token:
            response = ask(shop, cap, page_size=3, page_token=token)
            rest += ids(list(response.items))
            token = response.next_page_token
    found = [brands[i] for i in rest]
    assert other not in found
    assert found.count(brands[shown]) == 1


def test_pins_stand_at_their_places_on_every_page(shop: Harness, dataset: Dataset) -> None:
    usual = ids(list(ask(shop, rules(), page_size=50, exclude_seen=False).items))
    far = usual[-3:]
    pins = [pin(far[0], 1), pin(far[1], 5), pin("lost", 2)]
    listed = pages(shop, rules(pins=pins), 4, exclude_seen=False, explain=True)
    assert (listed[0].item_id, listed[4].item_id) == (far[0], far[1])
    assert [i for i, item in enumerate(listed) if item.source == "pinned"] == [0, 4]
    assert (listed[0].reasons[0].kind, listed[0].reasons[0].text) == ("pinned", "Chosen by the shop")
    assert len(ids(listed)) == len(set(ids(listed))) == len(dataset.catalogue)
    assert ask(shop, rules(pins=pins)).unknown_item_ids == ["lost"]


def test_a_pinned_item_that_is_deleted_excluded_or_filtered_is_not_shown(shop: Harness) -> None:
    usual = ids(list(ask(shop, rules(), page_size=60).items))
    pinned = usual[-1]
    given = rules(pins=[pin(pinned, 1)])
    assert ids(list(ask(shop, given).items))[0] == pinned
    assert pinned not in ids(list(ask(shop, given, exclude_item_ids=[pinned]).items))
    assert pinned not in ids(list(ask(shop, given, filter=f'item_id != "{pinned}"').items))
    with Client(shop.address) as client:
        client.delete_items([pinned])
    assert pinned not in ids(list(ask(shop, given).items))


def test_boosts_lift_and_bury(shop: Harness, brands: dict[str, str]) -> None:
    brand = Counter(brands.values()).most_common(1)[0][0]
    expression = f'brand = "{brand}"'
    for strength in (1.0, -1.0):
        boosts = [pb.Boost(filter=expression, strength=strength)]
        listed = [brands[i] == brand for i in ids(list(ask(shop, rules(boosts=boosts), page_size=60).items))]
        assert listed == sorted(listed, reverse=strength > 0)


def test_exploration_is_stable_over_pages_and_seeds_differ(shop: Harness) -> None:
    def explored(seed: int | None, size: int) -> list[tuple[int, str]]:
        exploration = pb.Exploration(share=0.25, seed=seed)
        listed = pages(shop, rules(exploration=exploration), size, exclude_seen=False, explain=True)[:16]
        assert len(set(ids(listed))) == len(listed)
        found = [item for item in listed if item.source == "exploration"]
        assert all(item.reasons[0].kind == "exploration" for item in found)
        return [(item.list_position, item.item_id) for item in found]

    assert len(explored(1, 8)) == 4
    assert explored(1, 8) == explored(1, 8)
    assert explored(None, 8) == explored(None, 8)
    assert len({tuple(explored(seed, 8)) for seed in range(6)}) > 3
    assert [place for place, _ in explored(1, 4)] == [place for place, _ in explored(1, 8)]


def test_all_rules_together_in_a_narrow_catalogue(shop: Harness, brands: dict[str, str]) -> None:
    first, second, *_ = sorted(set(brands.values()))
    expression = f'brand IN ("{first}", "{second}")'
    inside = [i for i in brands if brands[i] in (first, second)]
    outside = next(i for i in brands if brands[i] not in (first, second))
    given = rules(
        caps=[pb.AttributeCap(attribute="brand", max_items=3)],
        pins=[pb.Pin(item_id=inside[0], position=2), pb.Pin(item_id=outside, position=1)],
        boosts=[pb.Boost(filter=f'brand = "{second}"', strength=0.5)],
        exploration=pb.Exploration(share=0.5),
    )
    listed = pages(shop, given, 2, filter=expression, diversity=0.5, session=session(inside[1]))
    assert listed[1].item_id == inside[0]
    assert Counter(brands[i] for i in ids(listed)) == {first: 3, second: 3}


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (rules(caps=[pb.AttributeCap(attribute="categry", max_items=1)]), "rules.caps[0].attribute"),
        (rules(caps=[pb.AttributeCap(max_items=1)]), "rules.caps[0].attribute"),
        (rules(caps=[pb.AttributeCap(attribute="category")]), "rules.caps[0].max_items"),
        (rules(caps=[pb.AttributeCap(attribute="category", max_items=2001)]), "rules.caps[0].max_items"),
        (rules(caps=[pb.AttributeCap(attribute="category", max_items=1)] * 2), "rules.caps[1].attribute"),
        (rules(caps=[pb.AttributeCap(attribute="category", max_items=1)] * 11), "rules.caps"),
        (rules(pins=[pb.Pin(position=1)]), "rules.pins[0].item_id"),
        (rules(pins=[pb.Pin(item_id="a" * 257, position=1)]), "rules.pins[0].item_id"),
        (rules(pins=[pb.Pin(item_id="a")]), "rules.pins[0].position"),
        (rules(pins=[pin("a", 1), pin("a", 2)]), "rules.pins[1].item_id"),
        (rules(pins=[pin("a", 1), pin("b", 1)]), "rules.pins[1].position"),
        (rules(pins=[pb.Pin(item_id=str(i), position=i + 1) for i in range(101)]), "rules.pins"),
        (rules(boosts=[pb.Boost(strength=1)]), "rules.boosts[0].filter"),
        (rules(boosts=[pb.Boost(filter='category = "x"')]), "rules.boosts[0].strength"),
        (rules(boosts=[pb.Boost(filter='category = "x"', strength=1.1)]), "rules.boosts[0].strength"),
        (rules(boosts=[pb.Boost(filter="in_stock", strength=float("nan"))]), "rules.boosts[0].strength"),
        (rules(boosts=[pb.Boost(filter="category =", strength=1)]), "rules.boosts[0].filter"),
        (rules(boosts=[pb.Boost(filter='category = "x"', strength=1)] * 21), "rules.boosts"),
        (rules(exploration=pb.Exploration()), "rules.exploration.share"),
        (rules(exploration=pb.Exploration(share=1.5)), "rules.exploration.share"),
    ],
)  # fmt: skip
def test_rules_that_cannot_be_used_are_named(server: Harness, given: pb.ListRules, field: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        ask(server, given)
    error = ServiceError.of(caught.value)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [violation.field for violation in error.violations] == [field]


def test_attributes_that_are_lists_cannot_be_capped(server: Harness) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        ask(server, rules(caps=[pb.AttributeCap(attribute="tags", max_items=1)]))
    assert "'tags' is a list" in ServiceError.of(caught.value).message


def test_a_page_token_belongs_to_its_rules(shop: Harness) -> None:
    first = ask(shop, rules(exploration=pb.Exploration(share=0.5, seed=1)), page_size=3)
    with pytest.raises(grpc.RpcError) as caught:
        ask(
            shop,
            rules(exploration=pb.Exploration(share=0.5, seed=2)),
            page_size=3,
            page_token=first.next_page_token,
        )
    assert ServiceError.of(caught.value).reason == "PAGE_TOKEN_MISMATCH"


@pytest.mark.parametrize(
    ("context", "field"),
    [
        (pb.SessionContext(device="My Phone"), "session.device"),
        (pb.SessionContext(device="x" * 33), "session.device"),
        (pb.SessionContext(hour=24), "session.hour"),
        (pb.SessionContext(hour=-1), "session.hour"),
    ],
)
def test_device_and_hour_are_checked(server: Harness, context: pb.SessionContext, field: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Recommend(pb.RecommendRequest(session=context), timeout=10)
    assert [v.field for v in ServiceError.of(caught.value).violations] == [field]
