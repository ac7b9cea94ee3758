"""GetItem, ListItems, UpdateItem and BatchUpdateItems over the wire, on a real bundle and on every store."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import polars as pl
import pytest

from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Catalogue, Dataset
from ranking.catalogue.live_catalogue import ItemChange
from ranking.live.updates import LiveItems
from shelfwise_client import (
    CatalogueItem,
    Client,
    Item,
    ItemUpdate,
    RecommendQuery,
    ServiceError,
    SimilarQuery,
)
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.bundles import make_bundle
from tests.serving.backends import Backend
from tests.serving.conftest import Harness, Servers

BOOTS = "trail boots summit ridge"


@pytest.fixture
def live(dataset: Dataset, encoder: TextEncoder) -> LiveItems:
    return LiveItems(make_bundle(dataset, encoder), 100)


@pytest.fixture
def shop(servers: Servers, live: LiveItems, backend: Backend) -> Harness:
    return servers.start(live=live, state=backend.state)


@pytest.fixture
def client(shop: Harness) -> Iterator[Client]:
    with Client(shop.address) as client:
        yield client


def bundled(dataset: Dataset, item_id: str) -> dict[str, Any]:
    frame = dataset.catalogue.frame
    row = frame.row(dataset.catalogue.ids.index(item_id), named=True)
    return {name: row[name] for name in ("title", "brand", "price") if row[name] is not None}


def refused(call: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        call()
    return caught.value


def names(client: Client, filter_: str) -> set[str]:
    return {item.item_id for item in client.recommend(RecommendQuery(page_size=500, filter=filter_)).items}


def test_an_item_is_read_back_as_it_is_served(client: Client, dataset: Dataset) -> None:
    assert client.get_item("i7").attributes == pytest.approx(bundled(dataset, "i7"))
    client.upsert_items([Item("n1", {"title": BOOTS, "price": 3.5}), Item("i7", {"title": BOOTS})])
    assert client.get_item("n1").attributes == {"title": BOOTS, "price": 3.5}
    assert client.get_item("i7").attributes == {"title": BOOTS}
    client.delete_items(["i7"])
    for lost in ("i7", "never-heard-of"):
        error = refused(lambda lost=lost: client.get_item(lost))
        assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND")
    error = refused(lambda: client.get_item(""))
    assert [v.field for v in error.violations] == ["item_id"]


def test_a_price_changes_and_nothing_else(
    client: Client, dataset: Dataset, live: LiveItems, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = bundled(dataset, "i7")
    card = client.recommend(RecommendQuery(page_size=60)).items
    monkeypatch.setattr(type(live._bundle), "encode_items", lambda *_: pytest.fail("a text was encoded"))
    after = client.update_item(ItemUpdate("i7", {"price": 4321.5}))
    assert after == client.get_item("i7")
    assert after.attributes == pytest.approx({**before, "price": 4321.5})
    assert names(client, "price > 4321") == {"i7"}
    item = next(i for i in client.recommend(RecommendQuery(page_size=60)).items if i.item_id == "i7")
    shown = next(i for i in card if i.item_id == "i7")
    assert (item.title, item.snippet) == (shown.title, shown.snippet)
    assert client.status().changed_item_count == 1


def test_a_value_goes_with_null_or_with_a_mask(client: Client, shop: Harness, dataset: Dataset) -> None:
    before = bundled(dataset, "i7")
    assert "price" in before
    after = client.update_item(ItemUpdate("i7", {"price": None}))
    assert after.attributes == {name: value for name, value in before.items() if name != "price"}
    assert "i7" not in names(client, "price:*")
    request = ItemUpdate("i8", {"title": "not this", "price": 2.0}).message()
    request.update_mask.paths.extend(["attributes.price", "attributes.brand"])
    answer = shop.stub.UpdateItem(request, timeout=10)
    expected = {"title": bundled(dataset, "i8")["title"], "price": 2.0}
    assert CatalogueItem.of(answer.item).attributes == expected
    assert client.get_item("i8").attributes == expected


def test_a_whole_item_can_be_replaced_where_it_is_there(client: Client) -> None:
    after = client.update_item(ItemUpdate("i7", {"title": BOOTS, "brand": None}, replace=True))
    assert after.attributes == client.get_item("i7").attributes == {"title": BOOTS}
    found = client.similar_items(SimilarQuery(text=BOOTS, page_size=1)).items[0]
    assert found.item_id == "i7"
    assert found.similarity == pytest.approx(1.0, abs=1e-4)
    missing = ItemUpdate("n1", {"title": BOOTS}, replace=True)
    assert refused(lambda: client.update_item(missing)).reason == "ITEM_NOT_FOUND"
    added = client.update_item(ItemUpdate("n1", {"title": BOOTS, "price": 9.0}, allow_missing=True))
    assert added == client.get_item("n1") == CatalogueItem("n1", {"title": BOOTS, "price": 9.0})
    assert client.update_item(ItemUpdate("n1", {"price": 8.0})).attributes == {"title": BOOTS, "price": 8.0}


def test_an_update_of_a_deleted_item_does_not_bring_it_back(client: Client) -> None:
    client.delete_items(["i7"])
    assert refused(lambda: client.update_item(ItemUpdate("i7", {"price": 1.0}))).reason == "ITEM_NOT_FOUND"
    error = refused(lambda: client.update_item(ItemUpdate("i7", {"price": 1.0}, allow_missing=True)))
    assert error.reason == "ITEM_TEXT"  # what it was is gone; a price alone is no item
    client.update_item(ItemUpdate("i7", {"title": BOOTS}, allow_missing=True))
    assert client.get_item("i7").attributes == {"title": BOOTS}


def test_an_item_keeps_some_text(client: Client, dataset: Dataset) -> None:
    before = client.get_item("i7")
    assert client.update_item(ItemUpdate("i7", {"title": None})).attributes.keys() == {"brand", "price"}
    error = refused(lambda: client.update_item(ItemUpdate("i7", {"brand": "  "})))
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "ITEM_TEXT")
    assert error.violations[0].field == "item.attributes"
    assert "no text: set at least one of title, brand" in error.message
    assert client.get_item("i7").attributes["brand"] == before.attributes["brand"]
    textless = [Item("n1", {"price": 3.0}), Item("n2", {}), Item("n3", {"title": "<b> </b>&nbsp;"})]
    result = client.upsert_items([*textless, Item("n4", {"brand": "Acme"})])
    assert result.upserted_count == 1
    assert [(r.index, r.reason) for r in result.rejects] == [(n, "ITEM_TEXT") for n in range(3)]
    assert {r.message for r in result.rejects} == {"no text: set at least one of title, brand"}


def test_two_servers_that_change_one_item_at_once_keep_both_changes(
    servers: Servers, backend: Backend, dataset: Dataset, encoder: TextEncoder
) -> None:
    shops = [
        servers.start(live=LiveItems(make_bundle(dataset, encoder), 100), state=backend.state)
        for _ in range(2)
    ]
    title = bundled(dataset, "i7")["title"]
    faults: list[BaseException] = []

    def change(shop: Harness, name: str, values: list[object]) -> None:
        try:
            with Client(shop.address, timeout=20.0) as client:
                for value in values:
                    after = client.update_item(ItemUpdate("i7", {name: value}))
                    assert after.attributes[name] == value
        except BaseException as error:
            faults.append(error)

    both = [
        threading.Thread(target=change, args=(shops[0], "price", [float(n) for n in range(25)])),
        threading.Thread(target=change, args=(shops[1], "brand", [f"Brand {n}" for n in range(25)])),
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert faults == []
    expected = {"title": title, "price": 24.0, "brand": "Brand 24"}
    for shop in shops:
        with Client(shop.address) as client:
            assert client.get_item("i7").attributes == expected


def test_a_change_outlives_a_restart_and_leaves_the_rest_to_the_model(
    servers: Servers, backend: Backend, dataset: Dataset, encoder: TextEncoder
) -> None:
    first = servers.start(live=LiveItems(make_bundle(dataset, encoder), 100), state=backend.state)
    with Client(first.address) as client:
        client.update_items([ItemUpdate("i7", {"price": 0.5}), ItemUpdate("i8", {"title": BOOTS})])
    servers.stop(first)
    newer = Dataset(**{**vars(dataset), "catalogue": renamed(dataset, "i7", "walking boots")})
    second = servers.start(
        live=LiveItems(make_bundle(newer, encoder, version="v2"), 100), state=backend.state
    )
    with Client(second.address) as client:
        assert client.status().model_version == "v2"
        assert client.get_item("i7").attributes == {
            **bundled(dataset, "i7"), "title": "walking boots", "price": 0.5,
        }  # fmt: skip
        assert client.get_item("i8").attributes["title"] == BOOTS
        assert names(client, "price = 0.5") == {"i7"}
        found = client.similar_items(SimilarQuery(item_id="i8", page_size=1)).items[0]
        assert found.item_id != "i8"


def renamed(dataset: Dataset, item_id: str, title: str) -> Catalogue:
    frame = dataset.catalogue.frame
    titles = [title if i == item_id else t for i, t in frame.select("item_id", "title").iter_rows()]
    return Catalogue(frame.with_columns(pl.Series("title", titles)))


def test_an_item_that_a_new_model_does_not_have_is_not_made_of_its_price(
    servers: Servers, backend: Backend, dataset: Dataset, encoder: TextEncoder
) -> None:
    change = ItemUpdate("gone", {"price": 1.0})

    async def left_over() -> None:
        async with backend.opened() as stores:
            await stores.items.store([ItemChange("gone", {"price": 1.0}, partial=True)])

    asyncio.run(left_over())
    shop = servers.start(live=LiveItems(make_bundle(dataset, encoder), 100), state=backend.state)
    with Client(shop.address) as client:
        assert client.status().item_count == 60
        assert refused(lambda: client.update_item(change)).reason == "ITEM_NOT_FOUND"
        client.upsert_items([Item("gone", {"title": BOOTS})])
        assert client.update_item(change).attributes == {"title": BOOTS, "price": 1.0}


def test_rows_of_a_batch_are_taken_one_by_one(client: Client, dataset: Dataset) -> None:
    result = client.update_items(
        [
            ItemUpdate("i1", {"price": 1.25}),
            ItemUpdate("nope", {"price": 1.0}),
            ItemUpdate("i2", {"price": "cheap"}),
            ItemUpdate("i3", {"title": None, "brand": None}),
            ItemUpdate("", {"price": 1.0}),
            ItemUpdate("i1", {"brand": "Acme"}),
            ItemUpdate("i4", {"colour": "red"}),
            ItemUpdate("i5", {}),
            ItemUpdate("n1", {"title": BOOTS}, allow_missing=True),
            ItemUpdate("n1", {"price": 2.0}),
        ]
    )
    assert (result.updated_count, [(r.index, r.reason) for r in result.rejects]) == (
        4,
        [
            (1, "ITEM_NOT_FOUND"),
            (2, "ITEM_ATTRIBUTES"),
            (3, "ITEM_TEXT"),
            (4, "ITEM_ID"),
            (6, "ITEM_ATTRIBUTES"),
            (7, "ITEM_ATTRIBUTES"),
        ],
    )
    expected = {**bundled(dataset, "i1"), "price": 1.25, "brand": "Acme"}
    assert client.get_item("i1").attributes == pytest.approx(expected)
    assert client.get_item("n1").attributes == {"title": BOOTS, "price": 2.0}
    assert client.get_item("i3").attributes == pytest.approx(bundled(dataset, "i3"))


def test_validate_only_answers_and_changes_nothing(client: Client, dataset: Dataset) -> None:
    tried = client.update_item(ItemUpdate("i7", {"price": 0.25}), validate_only=True)
    assert tried.attributes == pytest.approx({**bundled(dataset, "i7"), "price": 0.25})
    batch = client.update_items([ItemUpdate("i7", {"price": 1}), ItemUpdate("?", {})], validate_only=True)
    assert (batch.updated_count, len(batch.rejects)) == (1, 1)
    assert client.get_item("i7").attributes == pytest.approx(bundled(dataset, "i7"))
    assert client.status().changed_item_count == 0


@pytest.mark.parametrize(
    ("request_message", "path", "reason"),
    [
        ({"item": {"item_id": ""}}, "item.item_id", "INVALID_FIELD"),
        ({"item": {"item_id": "x" * 257}}, "item.item_id", "INVALID_FIELD"),
        ({"item": {"item_id": "i1"}}, "item.attributes", "INVALID_FIELD"),
        ({"item": {"item_id": "i1", "attributes": {"price": "x"}}}, "item.attributes", "INVALID_FIELD"),
        ({"item": {"item_id": "i1", "attributes": {"pric": 1}}}, "item.attributes", "INVALID_FIELD"),
        ({"item": {"item_id": "i1"}, "update_mask": {"paths": ["price"]}}, "update_mask", "INVALID_FIELD"),
        ({"item": {"item_id": "i1"}, "update_mask": {"paths": ["attributes."]}}, "update_mask",
         "INVALID_FIELD"),
        ({"item": {"item_id": "i1"}, "update_mask": {"paths": ["attributes.x"] * 201}}, "update_mask",
         "INVALID_FIELD"),
        ({"item": {"item_id": "i1"}, "update_mask": {"paths": ["*"]}}, "item.attributes", "ITEM_TEXT"),
        ({"item": {"item_id": "n1", "attributes": {"title": BOOTS}}, "allow_missing": True},
         "item.attributes", "CATALOGUE_FULL"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_named(
    servers: Servers, live: LiveItems, request_message: dict[str, Any], path: str, reason: str
) -> None:
    shop = servers.start(live=live, max_live_items=1)
    with Client(shop.address) as client:
        client.upsert_items([Item("only", {"title": BOOTS})])
    with pytest.raises(grpc.RpcError) as caught:
        shop.stub.UpdateItem(pb.UpdateItemRequest(**request_message), timeout=10)
    error = ServiceError.of(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert [v.field for v in error.violations] == [path]


def test_an_empty_or_too_large_batch_is_refused(shop: Harness) -> None:
    for count in (0, 1001):
        request = pb.BatchUpdateItemsRequest(requests=[pb.UpdateItemRequest()] * count)
        with pytest.raises(grpc.RpcError) as caught:
            shop.stub.BatchUpdateItems(request, timeout=10)
        assert [v.field for v in ServiceError.of(caught.value).violations] == ["requests"]


def test_items_are_listed_in_the_order_of_their_ids_page_by_page(client: Client) -> None:
    client.upsert_items([Item(f"i5{n}x", {"title": BOOTS}) for n in range(3)])
    client.upsert_items([Item("ä", {"title": BOOTS}), Item("A", {"title": BOOTS})])
    client.delete_items(["i3", "i52x"])
    expected = sorted(
        [*(f"i{n}" for n in range(60) if n != 3), "i50x", "i51x", "A", "ä"], key=lambda i: i.encode()
    )
    seen, token = [], ""
    while True:
        page = client.list_items(page_size=7, page_token=token)
        assert len(page.items) <= 7
        seen += [item.item_id for item in page.items]
        token = page.next_page_token
        if not token:
            break
    assert seen == expected
    assert [i.item_id for i in client.list_items(page_size=500).items] == expected
    assert client.list_items(page_size=1).items[0] == client.get_item("A")


def test_a_listing_goes_on_whatever_comes_and_goes(client: Client) -> None:
    ids = sorted(f"i{n}" for n in range(60))
    seen, token = [], ""
    for step in range(100):
        page = client.list_items(page_size=4, page_token=token)
        seen += [item.item_id for item in page.items]
        token = page.next_page_token
        if not token:
            break
        client.delete_items([seen[-1]])  # the item behind which the next page begins
        client.upsert_items([Item(f"{seen[-1]}+", {"title": f"{BOOTS} {step}"})])
    assert [item for item in seen if not item.endswith("+")] == ids
    assert len(seen) == len(set(seen)) == 79  # behind the end of each of 19 pages stood another one


def test_listed_items_pass_a_filter_of_now(client: Client, shop: Harness) -> None:
    client.update_items([ItemUpdate(f"i{n}", {"price": 5000.0 + n}) for n in (40, 5, 17)])
    page = client.list_items(page_size=2, filter="price >= 5000")
    assert [i.item_id for i in page.items] == ["i17", "i40"]
    rest = client.list_items(page_size=2, page_token=page.next_page_token, filter="price >= 5000")
    assert [(i.item_id, i.attributes["price"]) for i in rest.items] == [("i5", 5005.0)]
    assert rest.next_page_token == ""
    none = client.list_items(filter="price < 0")
    assert (none.items, none.next_page_token) == ((), "")
    wrong = refused(lambda: client.list_items(page_token=page.next_page_token))
    assert (wrong.reason, [v.field for v in wrong.violations]) == ("PAGE_TOKEN_MISMATCH", ["page_token"])
    damaged = refused(lambda: client.list_items(page_token="x" + page.next_page_token))
    assert damaged.reason == "PAGE_TOKEN_INVALID"
    assert refused(lambda: client.list_items(filter="pric > 1")).reason == "FILTER_INVALID"
    assert [v.field for v in refused(lambda: client.list_items(page_size=-1)).violations] == ["page_size"]


def test_pages_of_large_items_fit_in_a_message(servers: Servers, live: LiveItems) -> None:
    shop = servers.start(live=live, max_message_bytes=65_536)
    with Client(shop.address) as client:
        for n in range(9):
            client.upsert_items([Item(f"n{n}", {"title": "x" * 9000, "brand": "Novum"})])
        seen, token, pages = [], "", 0
        while pages == 0 or token:
            page = client.list_items(page_size=9, page_token=token, filter='brand = "Novum"')
            seen += [i.item_id for i in page.items]
            token, pages = page.next_page_token, pages + 1
        assert (seen, pages) == ([f"n{n}" for n in range(9)], 3)


def test_deletes_name_what_they_did_not_know(client: Client) -> None:
    first = client.delete_items(["i1", "lost", "i2", "lost"])
    assert (first.deleted_count, list(first.unknown_item_ids)) == (2, ["lost"])
    again = client.delete_items(["i1", "i3"])
    assert (again.deleted_count, list(again.unknown_item_ids)) == (1, ["i1"])


def test_an_item_that_was_stored_without_text_breaks_no_start(
    servers: Servers, backend: Backend, dataset: Dataset, encoder: TextEncoder
) -> None:
    async def left_over() -> None:
        async with backend.opened() as stores:
            await stores.items.store([ItemChange("bare", {"price": 1.0})])

    asyncio.run(left_over())
    shop = servers.start(live=LiveItems(make_bundle(dataset, encoder), 100), state=backend.state)
    with Client(shop.address) as client:
        assert client.get_item("bare").attributes == {"price": 1.0}
        assert client.update_item(ItemUpdate("bare", {"price": 2.0})).attributes == {"price": 2.0}
        assert refused(lambda: client.update_item(ItemUpdate("bare", {"title": ""}))).reason == "ITEM_TEXT"
