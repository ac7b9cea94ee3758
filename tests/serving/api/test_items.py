"""UpsertItems and DeleteItems over the wire, on a real bundle."""

from __future__ import annotations

import threading
import time
from typing import Any

import grpc
import pytest

from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset
from ranking.live.updates import LiveItems
from shelfwise_client import Client, Event, Item, RecommendQuery, ServiceError, SessionEvent, SimilarQuery
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.bundles import make_bundle
from tests.serving.conftest import Harness, Servers

BOOTS = "trail boots summit ridge"


@pytest.fixture
def live(dataset: Dataset, encoder: TextEncoder) -> LiveItems:
    return LiveItems(make_bundle(dataset, encoder), 100)


@pytest.fixture
def shop(servers: Servers, live: LiveItems) -> Harness:
    return servers.start(live=live)


def new(item_id: str, title: str, brand: str = "Acme", price: float = 5.0) -> Item:
    return Item(item_id, {"title": title, "brand": brand, "price": price})


def rejects(server: Harness, *items: pb.Item) -> list[tuple[int, int, str]]:
    response = server.stub.UpsertItems(pb.UpsertItemsRequest(items=items), timeout=10)
    assert response.upserted_count + len(response.rejects) == len(items)
    return [(r.index, r.reason, r.message) for r in response.rejects]


def row(item_id: str, **attributes: Any) -> pb.Item:
    item = pb.Item(item_id=item_id)
    item.attributes.update(attributes)
    return item


def everything(client: Client, **query: Any) -> set[str]:
    return {i.item_id for i in client.recommend(RecommendQuery(page_size=500, **query)).items}


def test_a_new_item_is_found_and_recommended_at_once(shop: Harness) -> None:
    with Client(shop.address) as client:
        before = client.status()
        result = client.upsert_items([new("n1", BOOTS, "Borealis")])
        assert (result.upserted_count, result.rejects) == (1, ())
        found = client.similar_items(SimilarQuery(text=f"{BOOTS}. Brand: Borealis", page_size=1)).items[0]
        assert (found.item_id, found.title, found.snippet) == ("n1", BOOTS, f"{BOOTS}. Brand: Borealis")
        assert found.similarity == pytest.approx(1.0, abs=1e-4)
        assert "n1" in everything(client)
        page = client.recommend(RecommendQuery(intent=f"{BOOTS}. Brand: Borealis", explain=True))
        reasons = {i.item_id: [r.kind for r in i.reasons] for i in page.items}
        assert "matches_intent" in reasons["n1"]
        neighbours = client.similar_items(SimilarQuery(item_id="n1", page_size=5)).items
        assert len(neighbours) == 5
        assert "n1" not in {i.item_id for i in neighbours}
        after = client.status()
        assert (before.item_count, after.item_count) == (60, 61)
        assert (after.changed_item_count, after.deleted_item_count) == (1, 0)


def test_a_new_item_is_personalised_and_takes_events(shop: Harness) -> None:
    with Client(shop.address) as client:
        assert client.record_events([Event("u", "n1", "click")]).rejects[0].reason == "ITEM_ID"
        client.upsert_items([new("n1", BOOTS)])
        assert client.record_events([Event("u", "n1", "click")]).new_count == 1
        page = client.recommend(RecommendQuery(user_id="u", page_size=10, explain=True))
        assert page.degradation == "none"
        assert page.unknown_item_ids == ()
        session = client.recommend(RecommendQuery(session=(SessionEvent("n1"),), explain=True, page_size=10))
        assert "n1" in {r.because_item_id for i in session.items for r in i.reasons}


def test_filters_and_pages_see_new_items(shop: Harness) -> None:
    with Client(shop.address) as client:
        client.upsert_items([new(f"n{n}", f"{BOOTS} no{n}", "Novum", float(n)) for n in range(7)])
        assert everything(client, filter='brand = "Novum"') == {f"n{n}" for n in range(7)}
        assert everything(client, filter='brand = "Novum" AND price < 2') == {"n0", "n1"}
        seen, token = [], ""
        for _ in range(4):
            page = client.recommend(RecommendQuery(filter='brand = "Novum"', page_size=2, page_token=token))
            seen += [i.item_id for i in page.items]
            token = page.next_page_token
        assert token == ""
        assert sorted(seen) == [f"n{n}" for n in range(7)]


def test_pages_stay_disjoint_while_items_come_and_go(shop: Harness) -> None:
    with Client(shop.address) as client:
        seen, token, step = [], "", 0
        while True:
            page = client.recommend(RecommendQuery(page_size=7, page_token=token))
            seen += [i.item_id for i in page.items]
            token = page.next_page_token
            if not token:
                break
            client.upsert_items([new(f"n{step}", f"{BOOTS} no{step}")])
            client.delete_items([f"i{59 - step}"])
            step += 1
        assert len(seen) == len(set(seen))
        assert set(seen) >= {f"i{n}" for n in range(60 - step)}


def test_an_update_replaces_the_whole_item(shop: Harness) -> None:
    with Client(shop.address) as client:
        client.upsert_items([new("i3", BOOTS, "Novum", 3.0)])
        item = client.recommend(RecommendQuery(filter='brand = "Novum"')).items[0]
        assert (item.item_id, item.title) == ("i3", BOOTS)
        text = SimilarQuery(text=f"{BOOTS}. Brand: Novum", page_size=1)
        assert client.similar_items(text).items[0].similarity == pytest.approx(1.0, abs=1e-4)
        client.upsert_items([Item("i3", {"title": "guitar drum"})])
        assert everything(client, filter='brand = "Novum"') == set()
        assert "i3" not in everything(client, filter="price:*")
        assert "i3" in everything(client)
        assert client.similar_items(text).items[0].similarity < 0.999
        assert client.status().item_count == 60


def test_a_delete_holds_from_the_next_response_everywhere(shop: Harness) -> None:
    with Client(shop.address) as client:
        client.upsert_items([new("n1", BOOTS)])
        client.record_events([Event("u", "n1", "purchase"), Event("u", "i5", "purchase")])
        gone = {"n1", "i5", "i17", client.recommend(RecommendQuery(page_size=1)).items[0].item_id}
        assert client.delete_items([*gone, "never-heard-of"]).deleted_count == len(gone)
        for query in (
            {}, {"user_id": "u"}, {"user_id": "u", "exclude_seen": False}, {"intent": BOOTS},
            {"session": (SessionEvent("n1"), SessionEvent("i17"))}, {"filter": "price > 0"},
            {"diversity": 0.5},
        ):  # fmt: skip
            shown = everything(client, **query)
            assert not shown & gone
            assert len(shown) >= 40
        similar = client.similar_items(SimilarQuery(text=BOOTS, page_size=500)).items
        assert {i.item_id for i in similar} == {f"i{n}" for n in range(60)} - gone
        with pytest.raises(ServiceError) as caught:
            client.similar_items(SimilarQuery(item_id="n1"))
        assert caught.value.reason == "ITEM_NOT_FOUND"
        status = client.status()
        assert (status.item_count, status.deleted_item_count) == (61 - len(gone), len(gone))
        assert client.delete_items(list(gone)).deleted_count == 0


def test_a_deleted_item_comes_back_by_an_upsert(shop: Harness, dataset: Dataset) -> None:
    with Client(shop.address) as client:
        whole = [i.item_id for i in client.recommend(RecommendQuery(page_size=60)).items]
        frame = dataset.catalogue.frame
        values = frame.select("title", "brand", "price").row(7, named=True)
        client.delete_items(["i7"])
        client.upsert_items([Item("i7", values)])
        assert [i.item_id for i in client.recommend(RecommendQuery(page_size=60)).items] == whole


def test_changes_survive_a_restart_and_a_new_model(
    servers: Servers, dataset: Dataset, encoder: TextEncoder
) -> None:
    first = servers.start(live=LiveItems(make_bundle(dataset, encoder), 100))
    with Client(first.address) as client:
        client.upsert_items(
            [new("n1", BOOTS, "Novum"), new("n2", "guitar", "Novum"), new("i3", BOOTS, "Novum")]
        )
        client.delete_items(["n2", "i5"])
    servers.stop(first)
    # another model with another encoder, whose vectors have nothing to do with the first one's
    encoder.backbone.embeddings.word_embeddings.weight.data *= -1.0  # type: ignore[union-attr, operator]
    other = LiveItems(make_bundle(dataset, encoder, version="v2"), 100)
    second = servers.start(live=other)
    with Client(second.address) as client:
        assert client.status().model_version == "v2"
        assert everything(client, filter='brand = "Novum"') == {"n1", "i3"}
        assert not {"n2", "i5"} & everything(client)
        found = client.similar_items(SimilarQuery(text=f"{BOOTS}. Brand: Novum", page_size=2)).items
        assert {i.item_id for i in found} == {"n1", "i3"}
        assert found[0].similarity == pytest.approx(1.0, abs=1e-4)


def test_two_servers_on_one_state_see_each_others_changes(
    servers: Servers, dataset: Dataset, encoder: TextEncoder
) -> None:
    left = servers.start(live=LiveItems(make_bundle(dataset, encoder), 100), item_poll_seconds=0.02)
    right = servers.start(live=LiveItems(make_bundle(dataset, encoder), 100), item_poll_seconds=0.02)
    with Client(left.address) as one, Client(right.address) as two:
        one.upsert_items([new("n1", BOOTS)])
        two.delete_items(["i4"])
        deadline = time.monotonic() + 5
        while "n1" not in everything(two) or "i4" in everything(one):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        two.upsert_items([new("n2", BOOTS)])
        assert {"n1", "n2"} <= everything(two)


def test_validate_only_changes_nothing(shop: Harness) -> None:
    request = pb.UpsertItemsRequest(items=[row("n1", title="x"), row("", title="x")], validate_only=True)
    response = shop.stub.UpsertItems(request, timeout=10)
    assert (response.upserted_count, [r.index for r in response.rejects]) == (1, [1])
    assert shop.stub.GetStatus(pb.GetStatusRequest(), timeout=10).item_count == 60


def test_rows_that_cannot_be_taken_are_named_and_stop_no_other(shop: Harness) -> None:
    nested = row("n4")
    nested.attributes["title"] = {"deep": "x"}
    listed = row("n5")
    listed.attributes["title"] = [["x"]]
    bad = [
        row(""), row("x" * 257), row("n1", colour="red"), row("n2", price="cheap"),
        row("n3", title="x" * 10_001), nested, listed, row("n6", **{f"a{n}": "x" for n in range(201)}),
        row("n7", price=float("inf")),
    ]  # fmt: skip
    found = rejects(shop, *bad, row("good", title=BOOTS))
    assert [(index, reason) for index, reason, _ in found] == [
        (0, pb.RowReject.ITEM_ID),
        (1, pb.RowReject.ITEM_ID),
        *((n, pb.RowReject.ITEM_ATTRIBUTES) for n in range(2, 9)),
    ]  # fmt: skip
    assert "unknown attribute 'colour'" in found[2][2]
    assert "attribute 'price': expected a number" in found[3][2]
    assert "longer than 10,000 characters" in found[4][2]
    assert "expected text, a number" in found[5][2]
    with Client(shop.address) as client:
        assert "good" in everything(client)


def test_a_full_catalogue_takes_changes_but_no_more_items(servers: Servers, live: LiveItems) -> None:
    shop = servers.start(live=live, max_live_items=2)
    found = rejects(shop, *(row(f"n{n}", title=BOOTS) for n in (1, 1, 2, 3)), row("i1", title=BOOTS))
    assert [(index, reason) for index, reason, _ in found] == [(3, pb.RowReject.CATALOGUE_FULL)]


@pytest.mark.parametrize(
    ("rpc", "request_message", "path"),
    [
        ("UpsertItems", pb.UpsertItemsRequest(), "items"),
        ("UpsertItems", pb.UpsertItemsRequest(items=[pb.Item()] * 1001), "items"),
        ("DeleteItems", pb.DeleteItemsRequest(), "item_ids"),
        ("DeleteItems", pb.DeleteItemsRequest(item_ids=["x"] * 1001), "item_ids"),
        ("DeleteItems", pb.DeleteItemsRequest(item_ids=["x", ""]), "item_ids[1]"),
        ("DeleteItems", pb.DeleteItemsRequest(item_ids=["x" * 257]), "item_ids[0]"),
    ],
)
def test_bad_calls_are_named(server: Harness, rpc: str, request_message: Any, path: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        getattr(server.stub, rpc)(request_message, timeout=10)
    error = ServiceError.of(caught.value)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in error.violations] == [path]


def test_requests_go_on_while_many_items_come_and_go(shop: Harness) -> None:
    """No list contains an item deleted before its request, none fails, and none is short."""
    faults: list[str] = []
    stop = threading.Event()
    deleted: set[str] = set()

    def read() -> None:
        with Client(shop.address) as client:
            while not stop.is_set():
                gone = set(deleted)
                try:
                    shown = everything(client, intent=BOOTS, filter="price > 0" if len(gone) % 2 else "")
                except ServiceError as error:
                    faults.append(str(error))
                    return
                if shown & gone or len(shown) < 40:
                    faults.append(f"{shown & gone} {len(shown)}")

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    with Client(shop.address) as client:
        for number in range(40):
            client.upsert_items([new(f"n{number}", f"{BOOTS} no{number}")])
            if number % 2:
                client.delete_items([f"n{number}"])
                deleted.add(f"n{number}")
    stop.set()
    for reader in readers:
        reader.join()
    assert faults == []
