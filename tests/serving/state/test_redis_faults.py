"""A Redis that stops, hangs or loses data: errors, recovery, and no password in messages."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Callable

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console

from conf.errors import InputError
from conf.serving import LimitsConfig, RedisConfig
from ranking.catalogue.live_catalogue import ItemChange
from serving.observability.health import STATE_HEALTH
from serving.state.contracts.user_state import Outcome
from serving.stores import Stores
from shelfwise_client import Client, Event, RecommendQuery, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc
from tests.serving.conftest import Harness, Servers, until
from tests.serving.redis_server import RedisServer
from tests.serving.redis_stores import new, opened

PASSWORD = "correct-horse-battery"
CLICK = [Event("u", "i7", "click", event_id="e1")]


def health(server: Harness, service: str = "") -> int:
    with grpc.insecure_channel(server.address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return int(stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10).status)


def refused(server: Harness, event_id: str, timeout: float | None = 10.0) -> ServiceError:
    """Record an event that cannot be recorded, without the client's own retries."""
    event = pb.Event(user_id="u", item_id="i9", event="click", event_id=event_id)
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.RecordEvents(pb.RecordEventsRequest(events=[event]), timeout=timeout)
    return ServiceError.of(caught.value)


def degradation(client: Client, timeout: float = 10.0) -> str:
    return client.recommend(RecommendQuery(user_id="u"), timeout=timeout).degradation


def test_lists_go_on_without_redis_and_events_are_there_when_it_comes_back(
    servers: Servers, own_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    redis = own_redis()
    server = servers.start(state=redis.url)
    with Client(server.address, timeout=10.0) as client:
        assert client.record_events(CLICK).new_count == 1
        assert degradation(client) == "none"
        assert client.status().event_count == 1
        redis.kill()
        for _ in range(3):
            answer = client.recommend(RecommendQuery(user_id="u"))
            assert (answer.degradation, len(answer.items)) == ("history_unavailable", 20)
        assert client.recommend(RecommendQuery()).degradation == "popularity"
        assert client.status().event_count == 1  # as last known
        failed = refused(server, "e2")
        assert (failed.code, failed.reason) == (grpc.StatusCode.UNAVAILABLE, "STATE_UNAVAILABLE")
        assert failed.retry_seconds == 1.0
        assert health(server) == health_pb2.HealthCheckResponse.SERVING
        redis.start()
        until(lambda: degradation(client) == "none")
        assert client.record_events(CLICK).duplicate_count == 1
        assert client.recommend(RecommendQuery(user_id="u")).items[0].item_id == "i8"
    told = [r.getMessage() for r in caplog.records if r.name == "serving.api.user_context"]
    assert [text.partition(":")[0] for text in told] == [
        "lists are made without stored events from now on",
        "stored events can be read again",
    ]


@pytest.mark.parametrize("harm", ["kill", "freeze"])
def test_health_of_the_state_follows_redis_without_any_call(
    servers: Servers, own_redis: Callable[..., RedisServer], harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    redis = own_redis()
    server = servers.start(state=redis.url)
    works = server.running.metrics.registry.get_sample_value
    with grpc.insecure_channel(server.address) as channel:
        request = health_pb2.HealthCheckRequest(service=STATE_HEALTH)
        watched = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=30)
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        assert works("shelfwise_state_works") == 1
        getattr(redis, harm)()
        assert next(watched).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert works("shelfwise_state_works") == 0
        assert health(server) == health_pb2.HealthCheckResponse.SERVING  # lists are still made
        redis.thaw() if harm == "freeze" else redis.start()
        assert next(watched).status == health_pb2.HealthCheckResponse.SERVING
        watched.cancel()
    told = [r.getMessage() for r in caplog.records if r.name == "serving.state.health"]
    assert [text.partition(":")[0] for text in told] == ["the state does not work", "the state works again"]


def test_a_redis_that_hangs_holds_up_no_list(servers: Servers, own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis()
    settings = RedisConfig(timeout_seconds=0.2, retries=1)
    server = servers.start(state=redis.url, redis=settings, limits=LimitsConfig(history_seconds=0.1))
    with Client(server.address) as client:
        assert client.record_events(CLICK).new_count == 1
        redis.freeze()
        for _ in range(3):
            assert degradation(client, timeout=2.0) == "history_unavailable"
        assert refused(server, "e2", timeout=0.1).code == grpc.StatusCode.DEADLINE_EXCEEDED
        assert refused(server, "e2", timeout=None).reason == "STATE_UNAVAILABLE"
        assert health(server) == health_pb2.HealthCheckResponse.SERVING
        redis.thaw()
        until(lambda: degradation(client) == "none")
        # What hung may have been stored after all; sending it again tells.
        again = client.record_events([Event("u", "i9", "click", event_id="e2")])
        assert again.new_count + again.duplicate_count == 1
        assert client.status().event_count == 2


def test_more_callers_of_a_hanging_redis_than_connections_all_get_lists(
    servers: Servers, own_redis: Callable[..., RedisServer]
) -> None:
    redis = own_redis()
    few, short = RedisConfig(max_connections=4), LimitsConfig(history_seconds=0.1)
    server = servers.start(state=redis.url, redis=few, limits=short)
    redis.freeze()
    with grpc.insecure_channel(server.address) as channel:
        stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
        calls = [stub.Recommend.future(pb.RecommendRequest(user_id="u"), timeout=10) for _ in range(40)]
        assert {call.result().degradation for call in calls} == {pb.DEGRADATION_HISTORY_UNAVAILABLE}
    redis.thaw()
    with Client(server.address) as client:
        until(lambda: degradation(client) == "popularity")


def test_acknowledged_events_and_items_survive_a_killed_redis(own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis()

    async def scenario(stores: Stores) -> None:
        revision = await stores.items.store([ItemChange("a", {"title": "Boot"})])
        acknowledged: set[int] = set()

        async def write(number: int) -> None:
            await stores.users.record([new("a", str(number), f"u{number % 9}")])
            acknowledged.add(number)

        writes = [asyncio.create_task(write(number)) for number in range(400)]
        while len(acknowledged) < 100:
            await asyncio.sleep(0)
        redis.kill()
        before = set(acknowledged)
        redis.start()
        await asyncio.gather(*writes, return_exceptions=True)
        assert await stores.items.newest() == revision
        again = [new("a", str(number), f"u{number % 9}") for number in sorted(before)]
        assert set(await stores.users.record(again)) == {Outcome.duplicate}
        histories = [await stores.users.history(f"u{n}", 100) for n in range(9)]
        assert (await stores.users.stats()).events == sum(map(len, histories)) >= len(before) >= 100

    opened(redis.url, scenario)


def test_a_redis_that_forgot_everything_is_a_new_beginning(
    own_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    redis = own_redis()

    async def scenario(stores: Stores) -> None:
        users = stores.users
        await users.record([new("a", "1")])
        revision = await stores.items.store([ItemChange("a", None)])
        with redis.client as client:
            client.flushall()
        assert await users.record([new("b", "2")]) == [Outcome.new]
        assert [e.item_id for e in await users.history("u", 5)] == ["b"]
        # A follower that has seen the lost change does see the next one.
        assert await stores.items.store([ItemChange("b", None)]) > revision
        assert [s.item.item_id for s in await stores.items.since(revision, 5)] == ["b"]

    opened(redis.url, scenario)
    assert caplog.text.count("has lost its data, or a backup was restored") == 1


def test_the_password_is_in_no_message_and_no_log(
    servers: Servers,
    own_redis: Callable[..., RedisServer],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    redis = own_redis(requirepass=PASSWORD, appendfsync="everysec")
    secret = redis.url.replace("//", f"//:{PASSWORD}@")
    said = io.StringIO()

    server = servers.start(state=secret, log_requests=True, console=Console(file=said))
    with Client(server.address) as client:
        assert client.record_events(CLICK).new_count == 1
        redis.kill()
        said.write(str(refused(server, "e2")) + repr(server.running))
        assert degradation(client) == "history_unavailable"
    for wrong in (secret, secret.replace(PASSWORD, PASSWORD + "x")):
        with pytest.raises(InputError) as failed:
            servers.start(state=wrong)
        said.write(str(failed.value))
        if wrong == secret:
            redis.start()
    assert f"redis://127.0.0.1:{redis.port}/0" in said.getvalue()
    assert PASSWORD not in said.getvalue() + caplog.text
    monkeypatch.setenv("SHELFWISE_REDIS_PASSWORD", PASSWORD)
    assert opened(redis.url, lambda stores: stores.users.record([new("a", "1")])) == [Outcome.new]


def test_deadlines_that_pass_under_way_are_timeouts(own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis()

    async def scenario(stores: Stores) -> None:
        redis.freeze()
        soon = asyncio.get_running_loop().time() + 0.05
        with pytest.raises(TimeoutError):
            await stores.users.record([new("a", "1")], soon)
        redis.thaw()
        assert len(await stores.users.record([new("a", "1")])) == 1
        assert [e.item_id for e in await stores.users.history("u", 5)] == ["a"]

    opened(redis.url, scenario)
