"""A million characters, invalid UTF-8, deeply nested values: in every field."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import grpc
import polars as pl
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from ranking.catalogue.item_values import typed_values
from serving.api.service import SERVICE_NAME
from shelfwise_client import Client, RecommendQuery, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Harness

METHODS: list[MethodDescriptor] = list(pb.DESCRIPTOR.services_by_name["RecommendationService"].methods)
MILLION = 1_000_000
IGNORED = {"SearchItems: session.intent"}
"""Text fields that the service ignores by contract."""
REQUIRED: dict[str, dict[str, Any]] = {
    "session.events": {"item_id": "i1"},
    "events": {"user_id": "u", "item_id": "i1", "event": "click"},
    "items": {"item_id": "n"},
    "rules.caps": {"attribute": "title", "max_items": 1},
    "rules.pins": {"item_id": "i1", "position": 1},
    "rules.boosts": {"filter": 'title = "x"', "strength": 0.5},
}
"""Fields that make a row valid except for the tested one."""


def text_fields(
    of: Descriptor, path: tuple[FieldDescriptor, ...] = ()
) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Return the paths of all text fields of a message, at any depth, map keys and values included."""
    for field in of.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield (*path, field)
        elif field.message_type is not None and field.message_type not in [f.containing_type for f in path]:
            yield from text_fields(field.message_type, (*path, field))


def name(path: tuple[FieldDescriptor, ...]) -> str:
    return ".".join(field.name for field in path)


def holding(of: Descriptor, path: tuple[FieldDescriptor, ...], text: str) -> Any:
    """Return a request with a text in one field, and otherwise valid."""
    message: Any = message_factory.GetMessageClass(of)()
    _put(message, path, text, "")
    if "query" in of.fields_by_name and not message.query:
        message.query = "boots"
    if "users" in of.oneofs_by_name and message.WhichOneof("users") is None:
        message.user_list.user_ids.append("u")
    if "seed" in of.oneofs_by_name and message.WhichOneof("seed") is None:
        message.item_id = "i1"
    for update in _updates(message):
        update.item.item_id = update.item.item_id or "i1"
    return message


def _updates(message: Any) -> list[pb.UpdateItemRequest]:
    """Return the updates of one item each that a request holds."""
    if isinstance(message, pb.UpdateItemRequest):
        return [message]
    return list(message.requests) if isinstance(message, pb.BatchUpdateItemsRequest) else []


def _put(message: Any, path: tuple[FieldDescriptor, ...], text: str, where: str) -> None:
    field, *rest = path
    where = f"{where}.{field.name}".strip(".")
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    if not rest:
        getattr(message, field.name).append(text) if field.is_repeated else setattr(message, field.name, text)
    elif is_map and rest[0].name == "key":
        getattr(message, field.name)[text].string_value = "x"
    elif is_map:
        _put(getattr(message, field.name)["title"], tuple(rest[1:]), text, where)
    elif field.is_repeated:
        row = getattr(message, field.name).add()
        for known, value in REQUIRED.get(where, {}).items():
            setattr(row, known, value)
        _put(row, tuple(rest), text, where)
    else:
        _put(getattr(message, field.name), tuple(rest), text, where)


CASES = [(method, path) for method in METHODS for path in text_fields(method.input_type)]
IDS = [f"{method.name}: {name(path)}" for method, path in CASES]


def send(server: Harness, method: MethodDescriptor, data: bytes) -> Any:
    """Make a call with raw bytes; return the response, or the error."""
    with grpc.insecure_channel(server.address) as channel:
        kind = channel.unary_stream if method.server_streaming else channel.unary_unary
        read = message_factory.GetMessageClass(method.output_type).FromString
        call: Any = kind(f"/{SERVICE_NAME}/{method.name}", response_deserializer=read)
        try:
            answer = call(data, timeout=20)
            return list(answer) if method.server_streaming else answer
        except grpc.RpcError as error:
            return ServiceError.of(error)


def test_every_text_field_is_found() -> None:
    assert {
        "Recommend: session.events.item_id", "Recommend: read_mask.paths", "Recommend: exclude_item_ids",
        "RecordEvents: events.event_id", "UpsertItems: items.attributes.fields.key",
        "UpsertItems: items.attributes.fields.value.string_value", "DeleteUser: user_id",
        "SimilarItems: text",
    } <= set(IDS)  # fmt: skip


@pytest.mark.parametrize(("method", "path"), CASES, ids=IDS)
def test_a_million_characters_are_refused_by_the_name_of_their_field(
    server: Harness, method: MethodDescriptor, path: tuple[FieldDescriptor, ...]
) -> None:
    for letter in ("x", "é", "🥾"):
        text = letter * MILLION if letter == "x" else letter * (MILLION // 2)
        answer = send(server, method, holding(method.input_type, path, text).SerializeToString())
        if f"{method.name}: {name(path)}" in IGNORED:
            assert len(answer.request_id) == 32
        elif getattr(answer, "rejects", None):
            reject = answer.rejects[0]
            known = path[2].name if path[1].name == "attributes" else path[1].name
            assert known in reject.message or "attribute" in reject.message
            assert len(reject.message) < 500
            assert len(answer.rejects) == 1
        else:
            if isinstance(answer, list):  # what is wrong with one user of a stream does not end it
                assert [one.error.reason for one in answer] == ["INVALID_FIELD"]
                assert name(path).startswith("user_list")
                assert len(answer[0].error.message) < 1000
                continue
            assert isinstance(answer, ServiceError), answer
            assert (answer.code, len(answer.violations)) == (grpc.StatusCode.INVALID_ARGUMENT, 1)
            # An entry of a map is named in the message, the map in the field.
            known = name(path).removesuffix(".paths").partition(".fields.")[0]
            assert answer.violations[0].field.replace("[0]", "").startswith(known)
            assert "attribute" in answer.message or ".fields." not in name(path)
            assert len(answer.message.encode()) < 1000
    assert len(send(server, METHODS[0], b"").items) == 20  # and others are served


@pytest.mark.parametrize(("method", "path"), CASES, ids=IDS)
def test_bytes_that_are_no_text_are_a_malformed_request(
    server: Harness, method: MethodDescriptor, path: tuple[FieldDescriptor, ...]
) -> None:
    for bad in (b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80"):
        placeholder = "here:" + "?" * len(bad)
        good = holding(method.input_type, path, placeholder).SerializeToString()
        assert good.count(placeholder.encode()) == 1
        answer = send(server, method, good.replace(placeholder.encode(), b"here:" + bad))
        assert isinstance(answer, ServiceError)
        assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")
        assert len(answer.request_id) == 32


def test_values_nested_without_end_are_a_malformed_request(server: Harness) -> None:
    """A list in a list in a list: five bytes a level, and ten thousand levels."""
    value = b""
    for _ in range(10_000):  # Value.list_value (6) of ListValue.values (1)
        inner = b"\x0a" + _varint(len(value)) + value
        value = b"\x32" + _varint(len(inner)) + inner
    entry = b"\x0a\x05title\x12" + _varint(len(value)) + value
    attributes = b"\x0a" + _varint(len(entry)) + entry
    item = b"\x0a\x01n\x12" + _varint(len(attributes)) + attributes
    method = next(m for m in METHODS if m.name == "UpsertItems")
    answer = send(server, method, b"\x0a" + _varint(len(item)) + item)
    assert isinstance(answer, ServiceError)
    assert answer.reason == "MALFORMED_REQUEST"


def _varint(number: int) -> bytes:
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    return bytes([*data, number])


@pytest.mark.parametrize("expression", ["n" * 1999, f"title = '{'🥾' * 1900}' x", f"brand = {'é' * 1900}"])
def test_an_error_that_repeats_the_request_fits_into_the_headers_of_the_answer(
    server: Harness, expression: str
) -> None:
    """Clients accept 8 KiB of headers; a larger error would fail as another error."""
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Recommend(pb.RecommendRequest(filter=expression), timeout=10)
    error = ServiceError.of(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "FILTER_INVALID")
    found: Any = caught.value
    details = sum(len(key) + len(value) * 4 // 3 + 32 for key, value in found.trailing_metadata() or ())
    assert details + len(quote(error.message)) < 8192


def test_ids_with_tricks_are_only_ids(server: Harness) -> None:
    """Ids are looked up, never made into paths, statements or log lines."""
    tricks = [
        "../../../etc/passwd",
        "/etc/passwd",
        "a\0b",
        "x\nINFO forged",
        "'; DROP TABLE events; --",
        "%s%n",
        "\u202e",
    ]
    before = sorted(path.name for path in server.store.iterdir())
    events = [pb.Event(user_id=trick, item_id="i3", event="click", event_id=trick) for trick in tricks]
    assert server.stub.RecordEvents(pb.RecordEventsRequest(events=events), timeout=10).new_count == len(
        tricks
    )
    for trick in tricks:
        page = server.stub.Recommend(pb.RecommendRequest(user_id=trick, page_size=1), timeout=10)
        assert (page.items[0].item_id, page.degradation) == ("i4", pb.DEGRADATION_NONE)
        with pytest.raises(grpc.RpcError) as caught:
            server.stub.SimilarItems(pb.SimilarItemsRequest(item_id=trick), timeout=10)
        assert ServiceError.of(caught.value).reason == "ITEM_NOT_FOUND"
        assert (
            server.stub.DeleteUser(pb.DeleteUserRequest(user_id=trick), timeout=10).deleted_event_count == 1
        )
    assert sorted(path.name for path in server.store.iterdir()) == before
    with Client(server.address) as client:
        assert client.recommend(RecommendQuery(user_id="")).degradation == "popularity"


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_times_that_a_zone_leads_out_of_the_calendar_are_refused_by_name(moment: str) -> None:
    values, faults = typed_values({"created_at": moment}, {"created_at": pl.Datetime("us")})
    assert values == {"created_at": None}
    assert faults == ["attribute 'created_at': expected an ISO date or time as text"]
