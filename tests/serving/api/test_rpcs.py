"""SimilarItems, GetStatus, health, reflection and the generated code."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google import api
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from conf.serving import ServeConfig
from serving.api.service import SERVICE_NAME
from serving.observability.health import RELOAD_HEALTH, STATE_HEALTH
from shelfwise_client import ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Harness, Servers
from tests.serving.fake_bundle import DATA_END, ITEMS, KINDS, TEXT_DIM

ROOT = Path(__file__).parents[3]


def similar(server: Harness, **fields: Any) -> pb.SimilarItemsResponse:
    response: pb.SimilarItemsResponse = server.stub.SimilarItems(pb.SimilarItemsRequest(**fields), timeout=10)
    return response


def similar_refused(server: Harness, **fields: Any) -> ServiceError:
    with pytest.raises(grpc.RpcError) as caught:
        similar(server, **fields)
    return ServiceError.of(caught.value)


def nearest(server: Harness, row: int) -> list[str]:
    cosines = server.model.text_vectors @ server.model.text_vectors[row]
    return [f"i{r}" for r in (-cosines).argsort(kind="stable") if r != row]


def test_similar_by_item_leaves_the_item_itself_out(server: Harness) -> None:
    response = similar(server, item_id="i4", page_size=100)
    assert [i.item_id for i in response.items] == nearest(server, 4)
    expected = float(
        server.model.text_vectors[4] @ server.model.text_vectors[int(response.items[0].item_id[1:])]
    )
    assert response.items[0].similarity == pytest.approx(expected, abs=1e-6)
    assert response.next_page_token == ""
    assert response.model_version == "v1"


def test_similar_by_text_folds_whitespace(server: Harness) -> None:
    response = similar(server, text="  Item\n number  4 ", page_size=1)
    assert response.items[0].item_id == "i4"
    assert response.items[0].similarity == pytest.approx(1.0, abs=1e-6)


def test_similar_pages_filters_and_masks(server: Harness) -> None:
    fields: dict[str, Any] = {
        "item_id": "i4",
        "page_size": 4,
        "filter": 'category = "SHOES"',
        "exclude_item_ids": ["i0"],
        "read_mask": {"paths": ["item_id"]},
    }
    seen, token = [], ""
    for size in (4, 4, 1):
        response = similar(server, **fields, page_token=token)
        assert len(response.items) == size
        seen += [i.item_id for i in response.items]
        assert response.items[0] == pb.SimilarItem(item_id=seen[-size])
        token = response.next_page_token
    assert token == ""
    assert seen == [i for i in nearest(server, 4) if int(i[1:]) % 3 == 0 and i != "i0"]


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({}, "seed"),
        ({"item_id": ""}, "item_id"),
        ({"text": "  \n"}, "text"),
        ({"text": "x" * 10_001}, "text"),
        ({"item_id": "i1", "page_size": -2}, "page_size"),
        ({"item_id": "i1", "filter": "nope"}, "filter"),
        ({"item_id": "i1", "read_mask": {"paths": ["score"]}}, "read_mask"),
    ],
)
def test_similar_names_bad_fields(server: Harness, fields: dict[str, Any], path: str) -> None:
    error = similar_refused(server, **fields)
    assert error.code is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in error.violations] == [path]


def test_similar_to_an_unknown_item_is_not_found(server: Harness) -> None:
    error = similar_refused(server, item_id="nope")
    assert (error.code, error.reason) == (grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND")


def test_status_describes_model_limits_and_attributes(server: Harness) -> None:
    status = server.stub.GetStatus(pb.GetStatusRequest(), timeout=10)
    assert (status.model_version, status.item_count, status.text_dim) == ("v1", ITEMS, TEXT_DIM)
    assert list(status.event_kinds) == KINDS
    assert status.device == "cpu"
    assert status.model_data_time.seconds == DATA_END
    assert abs(status.model_load_time.seconds - time.time()) < 60
    assert {a.name: pb.Attribute.Type.Name(a.type) for a in status.attributes} == {
        "item_id": "STRING",
        "title": "STRING",
        "category": "STRING",
        "price": "NUMBER",
        "in_stock": "BOOL",
        "tags": "LIST",
    }
    assert (status.max_page_size, status.max_event_batch, status.max_future.seconds) == (500, 1000, 3600)
    assert (status.event_count, status.user_count, status.HasField("last_record_time")) == (0, 0, False)
    server.stub.RecordEvents(
        pb.RecordEventsRequest(events=[pb.Event(user_id="u", item_id="i1", event="click")]), timeout=10
    )
    status = server.stub.GetStatus(pb.GetStatusRequest(), timeout=10)
    assert (status.event_count, status.user_count) == (1, 1)
    assert abs(status.last_record_time.seconds - time.time()) < 60
    assert status.uptime.ToTimedelta().total_seconds() > 0


def test_a_message_beyond_the_limit_is_refused(servers: Servers) -> None:
    server = servers.start(max_message_bytes=65_536)
    with pytest.raises(grpc.RpcError) as caught:
        similar(server, text="x" * 70_000)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_health_check_and_watch(server: Harness) -> None:
    with grpc.insecure_channel(server.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE_NAME, RELOAD_HEALTH, STATE_HEALTH):
            response = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
            assert response.status == health_pb2.HealthCheckResponse.SERVING
        with pytest.raises(grpc.RpcError) as caught:
            health.Check(health_pb2.HealthCheckRequest(service="other"), timeout=10)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        watch = health.Watch(health_pb2.HealthCheckRequest(service=SERVICE_NAME), timeout=10)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        server.call(server.running._health.drain())
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
        watch.cancel()


def reflected(server: Harness, version: str, **request: Any) -> reflection_pb2.ServerReflectionResponse:
    """Call reflection by the path of one version; the messages of v1 equal v1alpha's."""
    with grpc.insecure_channel(server.address) as channel:
        call = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        return next(call(iter([reflection_pb2.ServerReflectionRequest(**request)]), timeout=10))


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_describes_the_service_and_itself(server: Harness, version: str) -> None:
    names = [s.name for s in reflected(server, version, list_services="").list_services_response.service]
    assert names == [
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        SERVICE_NAME,
    ]
    own = f"grpc.reflection.{version}"
    answer = reflected(server, version, file_containing_symbol=f"{own}.ServerReflection")
    (data,) = answer.file_descriptor_response.file_descriptor_proto
    file = FileDescriptorProto.FromString(data)
    assert file.package == own
    method = file.service[0].method[0]
    assert (method.name, method.input_type) == ("ServerReflectionInfo", f".{own}.ServerReflectionRequest")
    answer = reflected(server, version, file_containing_symbol=SERVICE_NAME).file_descriptor_response
    files = [FileDescriptorProto.FromString(data) for data in answer.file_descriptor_proto]
    methods = {m.name for f in files for s in f.service for m in s.method}
    assert {"Recommend", "SimilarItems", "SearchItems", "RecordEvents", "GetStatus"} <= methods


def test_reflection_is_off_unless_asked_for(servers: Servers) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        reflected(servers.start(reflection=ServeConfig().reflection), "v1", list_services="")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_generated_code_is_what_the_protos_generate(tmp_path: Path) -> None:
    package = "shelfwise_client/v1"
    protos = sorted(str(p.relative_to(ROOT)) for p in (ROOT / "proto/shelfwise/v1").glob("*.proto"))
    includes = [f"-I{package}=proto/shelfwise/v1", f"-I{Path(api.__path__[0]).parents[1]}"]
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *includes, *outputs, *protos],
        cwd=ROOT,
        check=True,
    )
    made = sorted((tmp_path / package).iterdir())
    assert len(made) == 3 * len(protos)
    checked_in = ROOT / "clients" / "python" / package
    for file in made:
        assert file.read_text() == (checked_in / file.name).read_text(), f"regenerate {file.name}"


def test_every_message_field_and_rpc_is_documented() -> None:
    undocumented = []
    for path in (ROOT / "proto/shelfwise/v1").glob("*.proto"):
        lines = [line.strip() for line in path.read_text().splitlines()]
        for before, line in zip(lines, lines[1:], strict=False):
            declares = line.startswith(("message ", "enum ", "rpc ", "service ", "oneof ")) or " = " in line
            if declares and not line.startswith(("//", "option ", "syntax")) and not before.startswith("//"):
                undocumented.append(line)
    assert undocumented == []
