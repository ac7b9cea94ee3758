"""The grpcurl session of docs/serving.md, command by command, against a real server.

grpcurl itself is not needed: a reflection client does what it does (asks the server for its descriptors,
turns JSON into messages and back), so a command that works here works there.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import grpc
import polars as pl
import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from encoders.text.text_encoder import TextEncoder
from features.data import schema
from ranking.live.updates import LiveItems
from serving.api.service import SERVICE_NAME
from serving.state.contracts.user_state import NewEvent
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.bundles import make_bundle
from tests.serving.conftest import Harness, servers  # noqa: F401 - a fixture
from tests.synthetic import make_dataset

PAGE = Path(__file__).parents[2] / "docs" / "serving.md"
FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ITEMS = ("sku-3", "sku-17", "sku-40", "sku-88", "sku-5", "sku-6")


@dataclass(frozen=True)
class Command:
    """A documented command and what it is said to print."""

    words: list[str]
    output: str

    @property
    def data(self) -> str:
        return self.words[self.words.index("-d") + 1] if "-d" in self.words else "{}"

    @property
    def positional(self) -> list[str]:
        """What follows the options: an address, then a verb or method."""
        rest: list[str] = []
        words = iter(self.words[1:])
        for word in words:
            if word in ("-d", "-H", "-cacert"):
                next(words)
            elif word != "-plaintext":
                assert not word.startswith("-"), f"an option that this test does not know: {word}"
                rest.append(word)
        return rest


def commands() -> list[Command]:
    """Read the blocks: `$ command`, over several lines where a quote or backslash is open, then output."""
    found = []
    for language, block in FENCE.findall(PAGE.read_text()):
        if language:
            continue
        for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            if not part.startswith("grpcurl "):
                continue
            lines = part.splitlines(keepends=True)
            for end in range(1, len(lines) + 1):
                text = "".join(lines[:end])
                if text.count("'") % 2 == 0 and not text.endswith("\\\n"):
                    break
            found.append(Command(shlex.split(text.replace("\\\n", " ")), "".join(lines[end:])))
    return found


def documented(output: str) -> Iterator[dict[str, Any]]:
    """Read the JSON objects of an output."""
    decoder, at = json.JSONDecoder(), 0
    while (start := output.find("{", at)) >= 0:
        value, at = decoder.raw_decode(output, start)
        yield value


def check_names(value: dict[str, Any], message: Any) -> None:
    """Compare documented fields with those of a message's descriptor; `...` stands for more."""
    if message.full_name == "google.protobuf.Struct":
        return
    fields = {field.json_name: field for field in message.fields}
    for name, content in value.items():
        if name == "...":
            continue
        assert name in fields, f"{message.name} has no field {name}"
        field = fields[name]
        contents = content if isinstance(content, list) else [content]
        assert isinstance(content, list) == field.is_repeated, name
        for part in contents:
            if part == "...":
                continue
            if field.type == FieldDescriptor.TYPE_MESSAGE:
                assert field.message_type is not None
                if field.message_type.full_name == "google.protobuf.Timestamp":
                    assert part.endswith("Z"), part
                    assert datetime.fromisoformat(part)
                    continue
                check_names(part, field.message_type)
            elif field.type == FieldDescriptor.TYPE_ENUM:
                assert field.enum_type is not None, part
                assert part in field.enum_type.values_by_name, part
            else:
                text = field.type == FieldDescriptor.TYPE_STRING
                wide = field.type in (FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64)
                assert isinstance(part, str) == (text or wide), f"{name}: {part!r}"


@pytest.fixture
def shop(servers: Any, encoder: TextEncoder) -> Harness:  # noqa: F811
    """The shop of the page: everything that its commands name is there."""
    texts = {
        "sku-3": ("Tomato sauce", "Acme", 1.5), "sku-17": ("Penne rigate 500 g", "Cobalt", 1.29),
        "sku-40": ("Basil pesto", "Acme", 2.49), "sku-88": ("Trail runner GTX", "Borealis", 89.0),
        "sku-5": ("Olive oil", "Cobalt", 4.0), "sku-6": ("Rain hat", "Borealis", 19.0),
    }  # fmt: skip
    table = pl.DataFrame(
        {
            schema.ITEM_ID: list(texts),
            schema.TEXT: [f"{title}. Brand: {brand}" for title, brand, _ in texts.values()],
            "title": [title for title, _, _ in texts.values()],
            "brand": [brand for _, brand, _ in texts.values()],
            "category": ["FOOD", "FOOD", "FOOD", "SHOES", "FOOD", "HATS"],
            "in_stock": [True] * 6,
            schema.PRICE: [price for _, _, price in texts.values()],
        }
    )
    rows = [(user, item, "purchase", 1_700_000_000) for user in ("u1", "u2") for item in ITEMS[:4]]
    dataset = make_dataset(rows, table, {"purchase": 1.0, "click": 0.5})
    started: Harness = servers.start(live=LiveItems(make_bundle(dataset, encoder), 10))
    bought = [NewEvent(user, "sku-17", "purchase", 1, "client:1") for user in ("u1", "u2", "u3")]
    started.call(started.running.service._state.record(bought))
    return started


class Reflected:
    """Calls methods that only the server's reflection knows."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = DescriptorPool(self.database)
        self._channel = channel

    def method(self, name: str) -> MethodDescriptor:
        service, _, method = name.rpartition("/")
        return self.pool.FindServiceByName(service).methods_by_name[method]

    def call(self, name: str, data: str) -> tuple[MethodDescriptor, list[dict[str, Any]]]:
        """Send JSON; return the responses as JSON."""
        method = self.method(name)
        request = json_format.Parse(data, GetMessageClass(method.input_type)(), descriptor_pool=self.pool)
        response = GetMessageClass(method.output_type)
        make = self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
        invoke: Callable[..., Any] = make(
            f"/{name}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        found = invoke(request, timeout=20)
        answers = list(found) if method.server_streaming else [found]
        return method, [json_format.MessageToDict(a, descriptor_pool=self.pool) for a in answers]


def test_every_rpc_is_shown() -> None:
    shown = {word.rpartition("/")[2] for command in commands() for word in command.positional if "/" in word}
    service = pb.DESCRIPTOR.services_by_name["RecommendationService"]
    assert {method.name for method in service.methods} <= shown


def test_the_session_runs_as_documented(shop: Harness) -> None:
    ran = []
    with grpc.insecure_channel(shop.address) as channel:
        client = Reflected(channel)
        for command in commands():
            address, verb, *rest = command.positional
            assert re.fullmatch(r"[a-z.]+:50051", address)
            if verb == "list":
                assert set(command.output.split()) == set(client.database.get_services())
                continue
            if verb == "describe":
                assert client.pool.FindMessageTypeByName(rest[0])
                continue
            method, answers = client.call(verb, command.data)
            ran.append(method.name)
            assert answers
            for value in documented(command.output):
                check_names(value, method.output_type)
            if verb.startswith(SERVICE_NAME) and method.name not in ("GetStatus", "DeleteUser"):
                first = next(documented(command.output))
                said = {name for name in first if name not in ("...", "nextPageToken")}
                assert said <= answers[0].keys() | {"deletedCount", "error"}, method.name
    assert ran.count("Recommend") >= 1
    assert "BatchRecommend" in ran
    assert "Check" in ran


def test_what_is_not_in_the_descriptors_is_found_out() -> None:
    message = pb.RecommendResponse.DESCRIPTOR
    check_names(
        {"items": [{"itemId": "x", "pClick": 0.5}, "..."], "degradation": "DEGRADATION_NONE"}, message
    )
    faults: list[dict[str, Any]] = [
        {"item": []}, {"items": {}}, {"items": [{"id": "x"}]}, {"degradation": "NONE"}, {"requestId": 5},
    ]  # fmt: skip
    for wrong in faults:
        with pytest.raises(AssertionError):
            check_names(wrong, message)
