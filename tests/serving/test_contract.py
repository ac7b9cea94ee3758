"""The proto keeps Google's API guidelines: field behaviour, validate_only, request ids, attribution."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor

from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Harness

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto/shelfwise/v1/recommendations.proto"
SERVICE = pb.DESCRIPTOR.services_by_name["RecommendationService"]
MUTATING = (
    "RecordEvents", "UpsertItems", "UpdateItem", "BatchUpdateItems", "DeclareAttributes", "DeleteItems",
    "DeleteUser",
)  # fmt: skip


def request_messages() -> list[Descriptor]:
    """Return every message type of requests."""
    found: dict[str, Descriptor] = {}
    waiting = [method.input_type for method in SERVICE.methods]
    while waiting:
        message = waiting.pop()
        if message.full_name not in found and message.full_name.startswith("shelfwise."):
            found[message.full_name] = message
            waiting += [field.message_type for field in message.fields if field.message_type is not None]
    return list(found.values())


def behaviour(field: Any) -> list[int]:
    return list(field.GetOptions().Extensions[field_behavior_pb2.field_behavior])


@pytest.mark.parametrize("message", request_messages(), ids=lambda m: m.name)
def test_every_request_field_says_whether_it_is_required(message: Descriptor) -> None:
    text = PROTO.read_text().split(f"message {message.name} {{")[1]
    for field in message.fields:
        oneof = field.containing_oneof
        if oneof is not None and not oneof.name.startswith("_"):
            continue  # one of several: the proto says what happens without any
        comment = re.search(rf"((?:  //[^\n]*\n)+)  [^\n/]*\b{field.name} = {field.number}\b", text)
        assert comment is not None, field.name
        required = comment.group(1).lstrip().startswith("// Required.")
        expected = field_behavior_pb2.REQUIRED if required else field_behavior_pb2.OPTIONAL
        assert behaviour(field) == [expected], field.name


def test_every_change_can_be_tried_and_every_answer_names_its_request() -> None:
    for method in SERVICE.methods:
        assert "request_id" in method.output_type.fields_by_name, method.name
        assert ("validate_only" in method.input_type.fields_by_name) == (method.name in MUTATING)


def test_every_list_names_itself_and_its_places() -> None:
    for name in ("Recommend", "SimilarItems", "SearchItems", "BatchRecommend"):
        output = SERVICE.methods_by_name[name].output_type
        assert "attribution_token" in output.fields_by_name
        item = output.fields_by_name["items"].message_type
        assert item is not None
        assert "list_position" in item.fields_by_name
        assert "surface" in SERVICE.methods_by_name[name].input_type.fields_by_name


def test_trying_a_change_changes_nothing(server: Harness) -> None:
    stub, event = server.stub, pb.Event(user_id="u", item_id="i1", event="click")
    stub.RecordEvents(pb.RecordEventsRequest(events=[event]))
    before = stub.GetStatus(pb.GetStatusRequest())
    assert stub.RecordEvents(pb.RecordEventsRequest(events=[event], validate_only=True)).new_count == 1
    item = pb.Item(item_id="n")
    item.attributes["title"] = "New"
    assert stub.UpsertItems(pb.UpsertItemsRequest(items=[item], validate_only=True)).upserted_count == 1
    ids = ["i1", "i2", "lost"]
    assert stub.DeleteItems(pb.DeleteItemsRequest(item_ids=ids, validate_only=True)).deleted_count == 2
    assert stub.DeleteUser(pb.DeleteUserRequest(user_id="u", validate_only=True)).deleted_event_count == 0
    after = stub.GetStatus(pb.GetStatusRequest())
    assert (after.event_count, after.user_count, after.item_count) == (
        before.event_count,
        1,
        before.item_count,
    )
    assert after.deleted_item_count == after.changed_item_count == 0


def test_the_generated_code_needs_nothing_from_this_folder(tmp_path: Path) -> None:
    """Field behaviour comes from googleapis-common-protos, a dependency of the client's package."""
    code = (
        "import shelfwise_client.v1.recommendations_pb2\n"
        "import google.api.field_behavior_pb2 as behaviour\n"
        "print(behaviour.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "clients" / "python"), "PATH": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "site-packages" in done.stdout
    for project in (ROOT / "pyproject.toml", ROOT / "clients" / "python" / "pyproject.toml"):
        needed = tomllib.loads(project.read_text())["project"]["dependencies"]
        assert any(line.startswith("googleapis-common-protos") for line in needed), project
