"""Refused calls leave no reference cycles in the server."""

from __future__ import annotations

import gc
from collections.abc import Callable
from types import FrameType
from typing import Any

import grpc
import pytest

from conf.serving import LimitsConfig
from serving.core.call_context import CallRecord
from serving.core.errors import ApiError
from serving.scheduling.batcher import QueueFullError
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Harness, Servers, fill_queue


def in_cycles(act: Callable[[], None]) -> list[Any]:
    """Return the objects left by some calls that only a garbage collection frees."""
    gc.disable()
    gc.collect()
    act()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        gc.collect()
        return list(gc.garbage)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()


def refused(server: Harness, request: pb.RecommendRequest, code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Recommend(request, timeout=20)
    assert caught.value.code() is code


def ours(left: list[Any]) -> list[Any]:
    frames = [x for x in left if isinstance(x, FrameType) and "serving/" in x.f_code.co_filename]
    of_the_server = [frame for frame in frames if "tests/" not in frame.f_code.co_filename]
    return [x for x in left if isinstance(x, (QueueFullError, ApiError, CallRecord))] + of_the_server


def test_a_request_that_is_refused_leaves_no_cycle(server: Harness) -> None:
    wrong = pb.RecommendRequest(page_size=-1)

    def act() -> None:
        for _ in range(5):
            refused(server, wrong, grpc.StatusCode.INVALID_ARGUMENT)

    act()
    assert ours(in_cycles(act)) == []


def test_a_request_that_there_is_no_room_for_leaves_no_cycle(servers: Servers) -> None:
    server = servers.start(max_queue=1, limits=LimitsConfig(max_queue_seconds=20))
    held = fill_queue(server)

    def act() -> None:
        for _ in range(5):
            refused(server, pb.RecommendRequest(), grpc.StatusCode.RESOURCE_EXHAUSTED)

    act()
    assert ours(in_cycles(act)) == []
    server.model.recommender.gate.set()
    assert [len(call.result().items) for call in held] == [20, 20]
