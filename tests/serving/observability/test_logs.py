"""The log on standard error of a process."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path

import grpc
import pytest

from serving.observability.logs import JsonFormatter, TextFormatter
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc
from tests.serving.fake_bundle import POISON
from tests.serving.test_process import Process

SECRET = "sw_not-a-real-key"


def test_every_line_is_an_object_with_the_fields_of_its_call(tmp_path: Path) -> None:
    server = Process(tmp_path, log_format="json")
    with grpc.insecure_channel(server.address) as channel:
        stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
        metadata = [("x-request-id", "r1"), ("authorization", f"Bearer {SECRET}")]
        request = pb.RecommendRequest(user_id="alice@example.com", session={"intent": "blue suede shoes"})
        stub.Recommend(request, metadata=metadata, timeout=10)
        search = pb.SearchItemsRequest(query="blue suede shoes", user_id="alice@example.com")
        stub.SearchItems(search, metadata=metadata, timeout=10)
        broken = pb.RecommendRequest(user_id="alice@example.com", session={"intent": POISON})
        with pytest.raises(grpc.RpcError):
            stub.Recommend(broken, metadata=[("x-request-id", "r2")], timeout=10)
        event = {"user_id": "alice@example.com", "item_id": "i1", "event": "click"}
        stub.RecordEvents(pb.RecordEventsRequest(events=[event]), metadata=metadata, timeout=10)
    code, errors = server.end(signal.SIGTERM)
    assert code == 0
    lines = [json.loads(line) for line in errors.splitlines()]
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    first = next(line for line in lines if line.get("request_id") == "r1")
    assert first["message"] == "Recommend OK"
    assert (first["level"], first["logger"]) == ("INFO", "serving.transport.call_interceptor")
    assert (first["method"], first["code"]) == ("Recommend", "OK")
    assert (first["degradation"], first["model_version"]) == ("text_only", "v1")
    assert first["user"] == "ff8d9819"  # sha256 of the id begins with this
    assert first["duration_ms"] > 0
    failure = next(line for line in lines if line["level"] == "ERROR")
    assert (failure["request_id"], failure["message"]) == ("r2", "Recommend failed")
    assert "ValueError: poisoned" in failure["exception"]
    assert next(line for line in lines if line["message"] == "RecordEvents OK")["new_events"] == 1
    for told in ("alice", "suede", SECRET, "blue"):
        assert told not in errors


def record() -> logging.LogRecord:
    return logging.makeLogRecord(
        {
            "name": "a.b",
            "levelname": "INFO",
            "msg": "%s OK",
            "args": ("X",),
            "created": 0.0,
            "request_id": "r",
        }
    )


def test_both_formats_hold_the_same() -> None:
    assert json.loads(JsonFormatter().format(record())) == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "level": "INFO",
        "logger": "a.b",
        "message": "X OK",
        "request_id": "r",
    }
    assert TextFormatter().format(record()).endswith("INFO a.b X OK request_id=r")
