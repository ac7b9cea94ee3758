from __future__ import annotations

import asyncio
import io
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from rich.console import Console

from conf.clients import RecommendConfig
from conf.errors import InputError
from conf.serving import ServeConfig
from serving.cli.recommend import recommend
from serving.running import start
from shelfwise_client import (
    AsyncClient,
    Boost,
    Client,
    Event,
    Item,
    ItemUpdate,
    ListRules,
    Reason,
    RecommendQuery,
    RecommendResult,
    ServiceError,
    SessionEvent,
    SimilarQuery,
)
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc
from tests.faults.changing_bundle import ChangingBundle
from tests.serving.conftest import Harness, Servers, in_loop, until
from tests.serving.fake_bundle import DATA_END, SLOW, FakeBundle


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_every_field_of_a_query_arrives() -> None:
    moment = datetime(2024, 5, 31, 12, tzinfo=UTC)
    message = RecommendQuery(
        user_id="u",
        session=(SessionEvent("i1", "click", moment), SessionEvent("i2")),
        intent="boots",
        page_size=7,
        page_token="t",
        filter="in_stock",
        exclude_item_ids=("x", "y"),
        exclude_seen=False,
        diversity=0.25,
        novelty=0.5,
        explain=True,
        surface="cart",
        fields=("item_id", "score"),
        request_time=moment,
        device="phone",
        hour=0,
        rules=ListRules({"brand": 2}, {"i1": 3}, (Boost("in_stock", -0.5),), 0.25, 0),
    ).message()
    assert (message.session.device, message.session.HasField("hour"), message.session.hour) == (
        "phone",
        True,
        0,
    )
    assert message.rules == pb.ListRules(
        caps=[pb.AttributeCap(attribute="brand", max_items=2)],
        pins=[pb.Pin(item_id="i1", position=3)],
        boosts=[pb.Boost(filter="in_stock", strength=-0.5)],
        exploration=pb.Exploration(share=0.25, seed=0),
    )
    assert (message.user_id, message.page_size, message.page_token, message.filter) == (
        "u",
        7,
        "t",
        "in_stock",
    )
    assert [(e.item_id, e.event, e.HasField("event_time")) for e in message.session.events] == [
        ("i1", "click", True),
        ("i2", "", False),
    ]
    assert message.session.events[0].event_time.seconds == int(moment.timestamp())
    assert (message.session.intent, list(message.exclude_item_ids), message.surface) == (
        "boots",
        ["x", "y"],
        "cart",
    )
    assert (message.HasField("exclude_seen"), message.exclude_seen, message.diversity) == (True, False, 0.25)
    assert message.novelty == 0.5
    assert (message.explain, list(message.read_mask.paths)) == (True, ["item_id", "score"])
    assert message.request_time.seconds == int(moment.timestamp())
    assert RecommendQuery().message() == pb.RecommendRequest(read_mask={})


def test_the_client_returns_plain_values(server: Harness) -> None:
    with Client(server.address) as client:
        result = client.recommend(RecommendQuery(session=(SessionEvent("i7"),), page_size=2, explain=True))
        assert [i.item_id for i in result.items] == ["i8", "i0"]
        assert result.items[0].reasons == (Reason("goes_with", "i7", 'Goes with "Item 7"'),)
        assert (result.items[0].p_click, result.items[0].p_purchase) == (None, None)
        assert result.degradation == "session_only"
        second = client.recommend(
            RecommendQuery(
                session=(SessionEvent("i7"),), page_size=2, explain=True, page_token=result.next_page_token
            )
        )
        assert [i.item_id for i in second.items] == ["i1", "i2"]
        assert second.items[0].p_click == 0.5
        assert client.similar_items(SimilarQuery(text="Item number 4", page_size=1)).items[0].item_id == "i4"
        assert client.similar_items(SimilarQuery(item_id="i4", page_size=3)).items[0].item_id != "i4"
        recorded = client.record_events(
            [Event("u", "i1", "click"), Event("u", "i1", "click"), Event("u", "?", "click")]
        )
        assert (recorded.new_count, recorded.duplicate_count) == (2, 0)  # each got an id of its own
        assert [(r.index, r.reason) for r in recorded.rejects] == [(2, "ITEM_ID")]
        status = client.status()
        assert (status.event_count, status.attributes["price"]) == (2, "number")
        assert status.model_data_time == datetime.fromtimestamp(DATA_END, UTC)


def test_both_clients_read_and_change_items(servers: Servers) -> None:
    model = ChangingBundle()
    server = servers.start(model, live=model)

    with Client(server.address) as client:
        assert client.declare_attributes({"shelf": "string"}).declared_count == 1
        shelved = client.get_item("i7").attributes
        assert shelved == {
            "title": "Item 7", "category": "HATS", "price": 7.0, "in_stock": False, "tags": [],
        }  # fmt: skip

    async def scenario() -> None:
        async with AsyncClient(server.address) as client:
            update = ItemUpdate("i8", {"price": 2.5, "shelf": "A", "tags": None})
            tried = await client.update_item(update, validate_only=True)
            assert (await client.get_item("i8")).attributes["price"] == 8.0
            assert tried.attributes == {
                "title": "Item 8", "category": "HATS", "price": 2.5, "in_stock": True, "shelf": "A",
            }  # fmt: skip
            result = await client.update_items([update, ItemUpdate("?", {"price": 1})], validate_only=True)
            assert (result.updated_count, result.rejects[0].reason) == (1, "ITEM_NOT_FOUND")
            page = await client.list_items(page_size=2, filter="price > 7", page_token="")
            assert [item.item_id for item in page.items] == ["i10", "i11"]
            assert (await client.declare_attributes({"shelf": "string"})).declared_count == 0
            deleted = await client.delete_items(["i1", "?"])
            assert (deleted.deleted_count, list(deleted.unknown_item_ids)) == (1, ["?"])

    in_loop(scenario())


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ("Tea cup", r"attributes of item 'n1' must be a mapping such as {'title': 'Tea cup'}, not str"),
        ({"price": np.int64(3)}, r"attribute 'price' of item 'n1' is numpy\.int64; send text, a number"),
        ({"sizes": [1, np.int64(3)]}, r"attribute 'sizes' of item 'n1' is list of int, numpy\.int64; send"),
        ({"size": {"cm": 3}}, r"attribute 'size' of item 'n1' is dict; send text, .* of text or numbers$"),
        ({"sizes": [[1, 2], [3]]}, r"attribute 'sizes' of item 'n1' is list of list of int; send text"),
        ({"sizes": ({"cm": 3},)}, r"attribute 'sizes' of item 'n1' is tuple of dict; send text"),
        ({"sizes": [3, None]}, r"attribute 'sizes' of item 'n1' is list of NoneType, int; send text"),
        ({7: "Tea cup"}, r"^attribute name 7 of item 'n1' must be text$"),
    ],
)
def test_a_value_that_cannot_be_sent_is_named(attributes: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Item("n1", attributes).message()
    with pytest.raises(ValueError, match=message):
        ItemUpdate("n1", attributes).message()


def test_every_type_that_an_attribute_has_can_be_sent() -> None:
    attributes = {"a": "x", "b": 1, "c": 2.5, "d": True, "e": None, "f": ["x"], "g": (1, 2.5), "h": []}
    sent = Item("n1", attributes).message().attributes.fields
    assert [value.number_value for value in sent["g"].list_value.values] == [1.0, 2.5]
    assert [sent[name].WhichOneof("kind") for name in attributes] == [
        "string_value", "number_value", "number_value", "bool_value", "null_value", *["list_value"] * 3,
    ]  # fmt: skip


def test_errors_carry_what_the_server_said(server: Harness) -> None:
    with Client(server.address) as client:
        with pytest.raises(ServiceError) as caught:
            client.recommend(RecommendQuery(filter="pricee < 3"))
        with pytest.raises(ServiceError) as late:
            client.recommend(RecommendQuery(intent=SLOW), timeout=0.05)
    error = caught.value
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FILTER_INVALID")
    assert [v.field for v in error.violations] == ["filter"]
    assert str(error).startswith(
        "INVALID_ARGUMENT: filter: column 1: unknown attribute 'pricee'; did you mean 'price'?"
    )
    assert len(error.request_id) == 32
    assert late.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_asynchronous_client_does_the_same(server: Harness) -> None:
    async def scenario() -> tuple[list[str], int, str, int]:
        async with AsyncClient(server.address) as client:
            recorded = await client.record_events([Event("u", "i7", "click")])
            result = await client.recommend(RecommendQuery(user_id="u", page_size=2))
            similar = await client.similar_items(SimilarQuery(text="Item number 9", page_size=1))
            status = await client.status()
            with pytest.raises(ServiceError) as caught:
                await client.recommend(RecommendQuery(page_size=-1))
            assert caught.value.violations[0].field == "page_size"
            return (
                [i.item_id for i in result.items],
                recorded.new_count,
                similar.items[0].item_id,
                status.event_count,
            )

    assert in_loop(scenario()) == (["i8", "i0"], 1, "i9", 1)


def test_a_call_is_retried_until_a_server_is_there(tmp_path: Path) -> None:
    port = closed_port()

    async def scenario() -> str:
        async with AsyncClient(f"127.0.0.1:{port}", timeout=10) as client:
            asked = asyncio.create_task(client.status())
            await asyncio.sleep(0.05)
            assert not asked.done()
            config = ServeConfig(artifacts=str(tmp_path), port=port)
            running = await start(config, FakeBundle, Console(file=io.StringIO()))
            try:
                return (await asked).model_version
            finally:
                await running.stop(1.0)

    assert in_loop(scenario()) == "v1"


class _Ends(pb_grpc.RecommendationServiceServicer):
    """Answers GetStatus with one code after the other, then with a status."""

    def __init__(self, codes: list[grpc.StatusCode]) -> None:
        self.codes = codes
        self.calls = 0

    def GetStatus(  # noqa: N802 - gRPC's name
        self, request: pb.GetStatusRequest, context: grpc.ServicerContext
    ) -> pb.GetStatusResponse:
        self.calls += 1
        if self.calls <= len(self.codes):
            context.abort(self.codes[self.calls - 1], "")
        return pb.GetStatusResponse(model_version="v2")


@pytest.mark.parametrize(
    ("codes", "calls"),
    [
        ([grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE], 3),
        ([grpc.StatusCode.CANCELLED] * 4, 4),
        ([grpc.StatusCode.ABORTED], 1),
    ],
    ids=["answered", "given up", "another code"],
)
def test_calls_that_a_stopping_server_ends_are_retried(codes: list[grpc.StatusCode], calls: int) -> None:
    servicer = _Ends(codes)
    server = grpc.server(ThreadPoolExecutor(1))
    pb_grpc.add_RecommendationServiceServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with Client(f"127.0.0.1:{port}") as client:
            if calls > len(codes):
                assert client.status().model_version == "v2"
            else:
                with pytest.raises(ServiceError) as caught:
                    client.status()
                assert caught.value.code is codes[-1]
    finally:
        server.stop(0).wait()
    assert servicer.calls == calls


def test_other_failures_are_not_retried(server: Harness) -> None:
    server.model.recommender.gate.clear()
    with Client(server.address) as client, pytest.raises(ServiceError):
        client.recommend(RecommendQuery(), timeout=0.1)
    server.model.recommender.gate.set()
    until(lambda: len(server.model.recommender.batches) == 1)
    with Client(server.address) as client:
        client.recommend(RecommendQuery())
    assert server.model.recommender.batches == [1, 1]


def shown(config: RecommendConfig) -> str:
    console = Console(file=io.StringIO(), width=140)
    recommend(config, console)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


def test_the_terminal_shows_the_list_and_who_made_it(server: Harness) -> None:
    text = shown(RecommendConfig(address=server.address, user="nobody", items=["i7", "lost"], k=2))
    rows = [line.split("│")[1:-1] for line in text.splitlines() if line.startswith("│")]
    cells = [[cell.strip() for cell in row] for row in rows]
    assert cells == [
        ["1", "i8", "Item 8", "10.1111", "item_to_item", 'Goes with "Item 7"'],
        ["2", "i0", "Item 0", "1.0000", "popular", "Popular right now"],
    ]
    assert "not in the catalogue, ignored: lost" in text
    assert "(degradation session_only); model v1; request " in text


def test_the_terminal_says_when_nothing_qualifies(server: Harness) -> None:
    assert "no item qualifies" in shown(RecommendConfig(address=server.address, filter="price > 1000"))


def test_the_terminal_asks_for_a_time(server: Harness) -> None:
    shown(RecommendConfig(address=server.address, request_time="2024-05-31T12:00:00"))
    assert server.model.recommender.seen[-1].now == 1_717_156_800
    with pytest.raises(InputError, match="request_time: 'noon' is not an ISO time"):
        shown(RecommendConfig(address=server.address, request_time="noon"))


def test_the_terminal_names_what_is_wrong_in_one_line(server: Harness) -> None:
    with pytest.raises(InputError, match=r"refused: filter: column 1: unknown attribute 'colour'"):
        shown(RecommendConfig(address=server.address, filter="colour = 1"))
    with pytest.raises(InputError, match="did not answer within 0.05 s; set timeout=SECONDS"):
        shown(RecommendConfig(address=server.address, intent=SLOW, timeout=0.05))
    address = f"127.0.0.1:{closed_port()}"
    with pytest.raises(InputError) as caught:
        shown(RecommendConfig(address=address))
    assert str(caught.value).startswith(f"no server answers at {address}; start one with `shelfwise serve`")
    assert "\n" not in str(caught.value)


def test_a_model_of_pseudonymised_users_is_not_served_in_the_clear(tmp_path: Path) -> None:
    model = FakeBundle()
    model.manifest["hash_users"] = True

    with pytest.raises(InputError, match="privacy.hash_users=true"):
        in_loop(
            start(ServeConfig(artifacts=str(tmp_path), port=0), lambda: model, Console(file=io.StringIO()))
        )


def test_a_degradation_of_a_later_server_does_not_break_the_client() -> None:
    assert RecommendResult.of(pb.RecommendResponse(degradation=99)).degradation == "unknown_99"  # type: ignore[arg-type]
