"""Overload: refusals, and recovery."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import grpc
import pytest

from conf.serving import LimitsConfig
from serving.state.sqlite.users import SqliteUserState
from shelfwise_client import Client, Event, RecommendQuery, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc
from tests.serving.conftest import Harness, Servers, fill_queue, in_loop, until
from tests.serving.fake_bundle import SLOW


def shed(server: Harness, reason: str) -> float:
    value = server.running.metrics.registry.get_sample_value("shelfwise_shed_total", {"reason": reason})
    return value or 0.0


def test_calls_beyond_the_limit_are_refused_with_a_time_to_retry(servers: Servers) -> None:
    server = servers.start(limits=LimitsConfig(max_concurrent=2, max_queue_seconds=20))
    server.model.recommender.gate.clear()
    stub = server.stub
    held = [stub.Recommend.future(pb.RecommendRequest(), timeout=20) for _ in range(2)]
    in_flight = "shelfwise_calls_in_flight"
    until(lambda: server.running.metrics.registry.get_sample_value(in_flight) == 2)
    with Client(server.address) as client, pytest.raises(ServiceError) as caught:
        client.status()
    assert caught.value.code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.reason == "OVERLOADED"
    assert caught.value.retry_seconds == pytest.approx(0.1)
    assert shed(server, "max_concurrent") == 1
    server.model.recommender.gate.set()
    assert [len(call.result().items) for call in held] == [20, 20]
    with Client(server.address) as client:
        assert client.status().model_version == "v1"


def test_a_call_without_deadline_gets_one(servers: Servers) -> None:
    server = servers.start(limits=LimitsConfig(default_deadline_seconds=0.2))
    server.model.recommender.gate.clear()
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Recommend(pb.RecommendRequest())
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    server.model.recommender.gate.set()


def test_a_history_that_takes_too_long_is_done_without(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = servers.start(limits=LimitsConfig(history_seconds=1.0, max_queue_seconds=20))
    release = threading.Event()
    with Client(server.address) as client:
        client.record_events([Event("u", "i7", "click")])
        assert client.recommend(RecommendQuery(user_id="u")).degradation == "none"
        blocked = asyncio.run_coroutine_threadsafe(block_reader(server, release), server.loop)
        result = client.recommend(RecommendQuery(user_id="u"), timeout=10)
        assert result.degradation == "history_unavailable"
        assert len(result.items) == 20
        release.set()
        blocked.result(10)
        assert client.recommend(RecommendQuery(user_id="u")).degradation == "none"
    errors = "shelfwise_state_errors_total"
    assert server.running.metrics.registry.get_sample_value(errors, {"method": "Recommend"}) == 1


async def block_reader(server: Harness, release: threading.Event) -> None:
    """Keep the reading thread busy until it is released."""
    users = server.running._stores.users
    assert isinstance(users, SqliteUserState)
    await users._file.read(lambda db: release.wait(20))


def test_a_flood_is_shed_by_waiting_time_and_leaves_nothing_behind(servers: Servers) -> None:
    """Ten times what the model can do; it does 4 lists in 80 ms."""
    server = servers.start(
        max_batch=4,
        limits=LimitsConfig(max_queue_seconds=0.4, standing_queue_seconds=0.1, max_concurrent=10_000),
    )
    server.model.recommender.slow_seconds = 0.02
    longest, codes = in_loop(flood(server, calls=500, seconds=1.0), 60)
    accepted, refused = codes.count(None), codes.count("OVERLOADED")
    assert accepted + refused == 500
    assert accepted >= 4
    assert refused >= 300
    assert longest < 100  # by count alone 512 could wait
    assert shed(server, "queue_wait") == refused
    until(lambda: len(server.running._host.jobs) == 0)
    with Client(server.address) as client:
        assert len(client.recommend(RecommendQuery(intent=SLOW)).items) == 20


def test_who_asks_again_at_once_is_refused_after_a_moment(servers: Servers) -> None:
    server = servers.start(max_queue=1, limits=LimitsConfig(max_queue_seconds=20))
    held = fill_queue(server)
    began = time.perf_counter()
    for _ in range(5):
        with pytest.raises(grpc.RpcError) as caught:
            server.stub.Recommend(pb.RecommendRequest(), timeout=20)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert time.perf_counter() - began >= 0.15
    server.model.recommender.gate.set()
    assert [len(call.result().items) for call in held] == [20, 20]


async def flood(server: Harness, calls: int, seconds: float) -> tuple[int, list[Any]]:
    """Send calls at a fixed rate (open loop); return the longest queue and the outcomes."""
    longest = 0
    async with grpc.aio.insecure_channel(server.address) as channel:
        stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
        request = pb.RecommendRequest(session={"intent": SLOW})
        running = []
        for _ in range(calls):
            running.append(asyncio.create_task(outcome(stub.Recommend(request, timeout=20))))
            longest = max(longest, len(server.running._host.jobs))
            await asyncio.sleep(seconds / calls)
        return longest, list(await asyncio.gather(*running))


async def outcome(call: Any) -> str | None:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return ServiceError.of(error).reason
    return None
