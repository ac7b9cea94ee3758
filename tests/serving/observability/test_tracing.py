"""Traces, as a real collector receives them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from conf.errors import InputError
from conf.serving import TracingConfig
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Servers

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Stores received spans."""

    def __init__(self) -> None:
        self.spans: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    server = grpc.server(ThreadPoolExecutor(2))
    service = Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(service, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield service, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def by_name(spans: list[Any]) -> dict[str, Any]:
    return {span.name: span for span in spans}


def test_a_call_continues_its_callers_trace_with_a_span_per_stage(
    servers: Servers, collector: tuple[Collector, str]
) -> None:
    service, endpoint = collector
    server = servers.start(tracing=TracingConfig(endpoint=endpoint, sample_ratio=0.0))
    request = pb.RecommendRequest(user_id="alice", filter="price < 20", session={"intent": "blue shoes"})
    sampled = [("traceparent", f"00-{TRACE}-{PARENT}-01"), ("x-request-id", "r1")]
    server.stub.Recommend(request, metadata=sampled, timeout=10)
    server.stub.Recommend(request, timeout=10)  # no caller's trace, and none begins here
    unsampled = [("traceparent", f"00-{TRACE}-{PARENT}-00")]
    server.stub.Recommend(request, metadata=unsampled, timeout=10)
    servers.stop(server)  # sends what is left
    spans = by_name(service.spans)
    assert len(spans) == len(service.spans)
    assert set(spans) == {
        "shelfwise.v1.RecommendationService/Recommend",
        *("validate", "filter", "history", "queue", "text_encoding", "response"),
    }
    root = spans.pop("shelfwise.v1.RecommendationService/Recommend")
    assert root.kind == Span.SPAN_KIND_SERVER
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, PARENT)
    for span in spans.values():
        assert (span.trace_id, span.parent_span_id) == (root.trace_id, root.span_id)
        assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano
        assert span.end_time_unix_nano <= root.end_time_unix_nano
    attributes = {a.key: a.value.string_value or a.value.int_value for a in root.attributes}
    assert attributes["rpc.method"] == "Recommend"
    assert attributes["rpc.grpc.status_code"] == "OK"
    assert attributes["shelfwise.request_id"] == "r1"
    assert attributes["shelfwise.model_version"] == "v1"
    assert attributes["shelfwise.degradation"] == "text_only"
    sent = b"".join(span.SerializeToString() for span in service.spans)
    assert b"alice" not in sent
    assert b"blue" not in sent
    assert b"price" not in sent


def test_traces_begin_here_where_the_ratio_says_so(
    servers: Servers, collector: tuple[Collector, str]
) -> None:
    service, endpoint = collector
    server = servers.start(tracing=TracingConfig(endpoint=endpoint, sample_ratio=1.0))
    server.stub.GetStatus(pb.GetStatusRequest(), timeout=10)
    with pytest.raises(grpc.RpcError):
        server.stub.Recommend(pb.RecommendRequest(page_size=-1), timeout=10)
    servers.stop(server)
    spans = by_name(service.spans)
    roots = {name for name, span in spans.items() if span.parent_span_id == b""}
    assert roots == {f"shelfwise.v1.RecommendationService/{m}" for m in ("GetStatus", "Recommend")}
    # A caller's mistake is not an error of the server.
    assert spans["shelfwise.v1.RecommendationService/Recommend"].status.code == 0


def test_a_collector_that_is_not_there_harms_nobody(servers: Servers) -> None:
    server = servers.start(tracing=TracingConfig(endpoint="http://127.0.0.1:9", sample_ratio=1.0))
    assert len(server.stub.Recommend(pb.RecommendRequest(), timeout=10).items) == 20
    servers.stop(server)


def test_an_address_that_cannot_be_one_is_named() -> None:
    with pytest.raises(InputError, match="tracing.endpoint must begin with http"):
        TracingConfig(endpoint="localhost:4317")
    with pytest.raises(InputError, match="tracing.sample_ratio must lie in 0..1"):
        TracingConfig(sample_ratio=1.5)
