"""SearchItems over the wire."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset
from ranking.live.updates import LiveItems
from shelfwise_client import Client, Event, Item, SearchQuery, ServiceError, SessionEvent
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.bundles import make_bundle
from tests.serving.conftest import Harness, Servers


@pytest.fixture
def shop(servers: Servers, dataset: Dataset, encoder: TextEncoder) -> Harness:
    return servers.start(live=LiveItems(make_bundle(dataset, encoder), 100))


def test_words_find_items_in_the_order_of_their_likeness(server: Harness) -> None:
    with Client(server.address) as client:
        result = client.search_items(SearchQuery("Item  number 4", page_size=3, explain=True))
        assert result.items[0].item_id == "i4"
        assert result.items[0].score == pytest.approx(1.0, abs=1e-5)
        assert result.items[0].source == "intent"
        assert [r.text for r in result.items[0].reasons] == ['Matches "Item number 4"']
        assert result.degradation == "text_only"
        assert (result.model_version, bool(result.request_id)) == ("v1", True)


def test_history_and_session_reach_the_search_and_seen_items_stay(server: Harness) -> None:
    with Client(server.address) as client:
        client.record_events([Event("u", "i4", "purchase")])
        known = client.search_items(SearchQuery("Item number 4", user_id="u"))
        assert known.degradation == "none"
        assert known.items[0].item_id == "i4"
        assert server.model.recommender.seen[-1].history.items.tolist() == [4]
        session = client.search_items(SearchQuery("boots", session=(SessionEvent("i7"), SessionEvent("zzz"))))
        assert (session.degradation, session.unknown_item_ids) == ("session_only", ("zzz",))


def test_search_pages_filters_and_masks(server: Harness) -> None:
    with Client(server.address) as client:
        seen, token = [], ""
        for size in (4, 4, 1):
            query = SearchQuery(
                "boots", page_size=4, page_token=token, filter='category = "SHOES"', exclude_item_ids=("i0",),
                fields=("item_id",),
            )  # fmt: skip
            page = client.search_items(query)
            assert len(page.items) == size
            assert page.items[0].title == ""
            seen += [i.item_id for i in page.items]
            token = page.next_page_token
        assert token == ""
        assert sorted(seen) == sorted(f"i{n}" for n in range(3, 30, 3))


def test_the_same_words_are_ordered_for_the_shopper(shop: Harness) -> None:
    with Client(shop.address) as client:
        for user, item in (("a", "i0"), ("b", "i3")):
            client.record_events([Event(user, item, "purchase")])
        anyone, a, b = (
            client.search_items(SearchQuery("boots pan", user_id=u, page_size=60)) for u in ("", "a", "b")
        )
        assert (anyone.degradation, a.degradation) == ("text_only", "none")
        plain = {i.item_id: i.score for i in anyone.items}
        for answer in (a, b):
            assert {i.item_id for i in answer.items} == plain.keys()
            assert max(abs(i.score - plain[i.item_id]) for i in answer.items) <= 0.1 + 1e-5
        assert [i.item_id for i in a.items] != [i.item_id for i in b.items]


def test_new_items_are_searched_and_deleted_ones_are_not(shop: Harness) -> None:
    with Client(shop.address) as client:
        query = SearchQuery("violet trail boots. Brand: Acme", page_size=3)
        client.upsert_items([Item("n1", {"title": "violet trail boots", "brand": "Acme", "price": 1.0})])
        assert client.search_items(query).items[0].item_id == "n1"
        client.delete_items(["n1"])
        assert "n1" not in {i.item_id for i in client.search_items(query).items}


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "query"),
        ({"query": " \n "}, "query"),
        ({"query": " . …!"}, "query"),
        ({"query": "x" * 1001}, "query"),
        ({"query": "x", "page_size": -1}, "page_size"),
        ({"query": "x", "user_id": "u" * 257}, "user_id"),
        ({"query": "x", "filter": "nope"}, "filter"),
        ({"query": "x", "read_mask": {"paths": ["nope"]}}, "read_mask"),
        ({"query": "x", "exclude_item_ids": ["x"] * 10_001}, "exclude_item_ids"),
        ({"query": "x", "session": {"events": [{"item_id": ""}]}}, "session.events[0].item_id"),
    ],
)
def test_bad_searches_are_named(server: Harness, fields: dict[str, Any], path: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.SearchItems(pb.SearchItemsRequest(**fields), timeout=10)
    error = ServiceError.of(caught.value)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in error.violations] == [path]
