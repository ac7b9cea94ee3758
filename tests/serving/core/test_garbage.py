"""When Python looks for garbage."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any

import grpc
import pytest

from conf.serving import LimitsConfig
from serving.core import garbage
from serving.core.call_context import CallRecord
from serving.core.errors import ApiError
from serving.core.garbage import Replaced, look_rarely, no_collection
from serving.scheduling.batcher import QueueFullError
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.serving.conftest import Harness, Servers, fill_queue


class Thing:
    """May hold itself."""

    itself: Thing | None = None


def test_a_server_looks_less_often() -> None:
    before = gc.get_threshold()
    try:
        look_rarely()
        assert gc.get_threshold()[0] >= 10_000
        assert gc.get_threshold()[1:] == before[1:]
    finally:
        gc.set_threshold(*before)


def test_what_has_been_replaced_and_holds_itself_is_freed_after_some_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gc.disable()
    thing, replaced = Thing(), Replaced()
    thing.itself = thing
    held = weakref.ref(thing)
    replaced.add(thing)
    del thing
    replaced.check()
    assert held() is not None, "somebody may still be answered by it"
    monkeypatch.setattr(garbage, "_PATIENCE_SECONDS", 0.0)
    replaced.check()
    assert held() is None


def test_what_is_still_used_is_looked_for_once_and_what_is_gone_not_at_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[None] = []
    monkeypatch.setattr(garbage, "_PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(gc, "collect", lambda: looks.append(None))
    replaced, used = Replaced(), Thing()
    replaced.add(used)
    replaced.add(Thing())  # gone at once
    for _ in range(3):
        replaced.check()
    assert len(looks) == 1
    replaced.add(Thing())
    replaced.check()
    assert len(looks) == 1


def test_nothing_is_looked_for_while_a_model_is_loaded() -> None:
    gc.enable()  # off in tests of servers
    with no_collection():
        assert not gc.isenabled()
        made: list[object] = []
    assert gc.isenabled()
    # Not the number of what is frozen, which other threads' objects may leave at any moment.
    assert any(thing is made for thing in gc.get_objects())


def test_who_has_switched_it_off_finds_it_off() -> None:
    gc.disable()
    with no_collection():
        pass
    assert not gc.isenabled()


def test_a_loading_that_fails_does_not_end_all_looking() -> None:
    gc.enable()
    with pytest.raises(ValueError, match="damaged"), no_collection():
        raise ValueError("damaged")
    assert gc.isenabled()


def in_circles(act: Callable[[], None]) -> list[Any]:
    """Return what only a look for garbage would free of what some calls leave behind."""
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


def test_a_request_that_is_refused_leaves_no_circle_of_the_servers(server: Harness) -> None:
    wrong = pb.RecommendRequest(page_size=-1)

    def act() -> None:
        for _ in range(5):
            refused(server, wrong, grpc.StatusCode.INVALID_ARGUMENT)

    act()
    assert ours(in_circles(act)) == []


def test_a_request_that_there_is_no_room_for_leaves_no_circle_of_the_servers(servers: Servers) -> None:
    server = servers.start(max_queue=1, limits=LimitsConfig(max_queue_seconds=20))
    held = fill_queue(server)

    def act() -> None:
        for _ in range(5):
            refused(server, pb.RecommendRequest(), grpc.StatusCode.RESOURCE_EXHAUSTED)

    act()
    assert ours(in_circles(act)) == []
    server.model.recommender.gate.set()
    assert [len(call.result().items) for call in held] == [20, 20]
