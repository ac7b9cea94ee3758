"""State in Redis: what happens when it stops, hangs, forgets, refuses, or is addressed in other ways."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import grpc
import polars as pl
import pytest
import trustme
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console

from conf.errors import InputError
from conf.serving import LimitsConfig, RedisConfig
from ranking.live_catalogue import ItemChange
from serving.client import Client
from serving.proto.shelfwise.v1 import recommendations_pb2 as pb
from serving.proto.shelfwise.v1 import recommendations_pb2_grpc as pb_grpc
from serving.queries import Event, RecommendQuery
from serving.redis_state import RedisUserState
from serving.redis_store import safe_name
from serving.results import ServiceError
from serving.server import STATE_HEALTH
from serving.stores import Stores, open_stores
from serving.user_state import NewEvent, Outcome, StateUnavailable
from tests.serving.conftest import Harness, Servers, until
from tests.serving.redis_server import RedisServer, free_port

T = TypeVar("T")
START = 1_700_000_000_000_000
PASSWORD = "correct-horse-battery"
CLICK = [Event("u", "i7", "click", event_id="e1")]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts Redis servers that a test may stop and spoil."""
    started: list[RedisServer] = []

    def begin(**settings: str) -> RedisServer:
        started.append(RedisServer(tmp_path / f"redis-{len(started)}", **settings))
        return started[-1]

    yield begin
    for server in started:
        server.close()


def opened(url: str, scenario: Callable[[Stores], Awaitable[T]], **settings: Any) -> T:
    async def run() -> T:
        stores = await open_stores(url, Path("nowhere"), RedisConfig(**settings))
        try:
            return await scenario(stores)
        finally:
            await stores.close()

    return asyncio.run(run())


def new(item: str, event_id: str, user: str = "u", kind: str = "click", time_us: int = START) -> NewEvent:
    return NewEvent(user, item, kind, time_us, f"client:{event_id}")


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
        assert failed.retry_seconds is not None
        assert health(server) == health_pb2.HealthCheckResponse.SERVING
        redis.start()
        until(lambda: degradation(client) == "none")
        assert client.record_events(CLICK).duplicate_count == 1
        assert client.recommend(RecommendQuery(user_id="u")).items[0].item_id == "i8"
    told = [r.getMessage() for r in caplog.records if r.name == "serving.recall"]
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
    told = [r.getMessage() for r in caplog.records if r.name == "serving.state_health"]
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
        assert [s.change.item_id for s in await stores.items.since(revision, 5)] == ["b"]

    opened(redis.url, scenario)
    assert caplog.text.count("has lost its data") == 1


def test_the_newest_events_of_a_user_are_kept_impressions_apart(
    own_redis: Callable[..., RedisServer],
) -> None:
    redis = own_redis()

    async def scenario(stores: Stores) -> None:
        users = stores.users
        await users.record([new(f"i{n}", f"c{n}", time_us=START + n) for n in range(5)])
        await users.record([new(f"s{n}", f"s{n}", kind="impression", time_us=START + n) for n in range(4)])
        assert [e.item_id for e in await users.history("u", 9, impressions=False)] == ["i2", "i3", "i4"]
        assert len(await users.history("u", 9)) == 6
        assert (await users.stats()).events == 6
        assert await users.item_counts() == {"i2": 1, "i3": 1, "i4": 1}
        assert await users.record([new("i4", "c4", time_us=START + 4)]) == [Outcome.duplicate]
        assert await users.record([new("i0", "c0", time_us=START)]) == [
            Outcome.new
        ]  # forgotten, and not kept
        assert (await users.stats()).events == 6
        assert await users.delete_user("u") == 6
        assert (await users.stats()).events == 0 and await users.item_counts() == {}

    opened(redis.url, scenario, max_user_events=3)
    with redis.client as client:
        left = {bytes(key).removeprefix(b"shelfwise:") for key in client.keys()}
    assert left == {b"store", b"deleted-users"}


def test_user_ids_stand_nowhere_but_in_the_set_of_users(own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis()
    opened(redis.url, lambda stores: stores.users.record([new("a", "1", user="alice")]))
    with redis.client as client:
        assert [key for key in client.keys() if b"alice" in key] == []
        assert client.zrange("shelfwise:users", 0, -1) == [b"alice"]


def test_an_import_that_another_server_left_unfinished_is_taken_over(
    own_redis: Callable[..., RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = own_redis()
    path = tmp_path / "h.parquet"
    rows = [(f"u{n:02}", "a", "click", n, n) for n in range(30)]
    columns = ["user_id", "item_id", "event", "timestamp", "order"]
    pl.DataFrame(rows, schema=columns, orient="row").write_parquet(path)
    monkeypatch.setattr("serving.redis_import._LOCK_SECONDS", 0.3)
    monkeypatch.setattr("serving.redis_import._SLICE", 10)

    async def scenario(stores: Stores) -> None:
        with redis.client as client:  # a server that was killed at its work
            client.set("shelfwise:importing", "somebody", px=300)
        results = await asyncio.gather(*(stores.users.import_histories(path) for _ in range(3)))
        assert sorted(result.new for result in results) == [0, 0, 30]
        assert sorted(result.already_imported for result in results) == [False, True, True]

    opened(redis.url, scenario)


def test_a_server_that_stood_still_leaves_the_import_to_the_other(
    own_redis: Callable[..., RedisServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis = own_redis()
    path = tmp_path / "h.parquet"
    pl.DataFrame(
        {"user_id": ["u", "v"], "item_id": "a", "event": "click", "timestamp": [1, 2], "order": [0, 0]}
    ).write_parquet(path)
    monkeypatch.setattr("serving.redis_import._SLICE", 1)
    asked: list[int] = []

    async def scenario(stores: Stores) -> None:
        assert isinstance(stores.users, RedisUserState)
        run = stores.users._store.run

        async def slow_run(script: str, *rest: Any) -> Any:
            if script == "import" and not asked:
                asked.append(1)
                with redis.client as client:
                    client.set("shelfwise:importing", "the other", px=200)
            return await run(script, *rest)

        monkeypatch.setattr(stores.users._store, "run", slow_run)
        result = await stores.users.import_histories(path)
        assert (result.rows, result.new) == (2, 1)  # once the other one has died, too
        assert (await stores.users.stats()).events == 2

    opened(redis.url, scenario)


@pytest.mark.parametrize("save", ["", "3600 1"])
@pytest.mark.parametrize("appendonly", ["yes", "no"])
def test_erased_users_are_gone_from_redis_files(
    own_redis: Callable[..., RedisServer], save: str, appendonly: str
) -> None:
    redis = own_redis(appendonly=appendonly, save=save)

    def files_with(text: bytes) -> list[str]:
        return [p.name for p in redis.folder.rglob("*") if p.is_file() and text in p.read_bytes()]

    async def scenario(stores: Stores) -> None:
        await stores.users.record([new("a", "1", user=f"shopper-{n}") for n in range(20)])
        with redis.client as client:
            client.save()
        assert files_with(b"shopper-7")
        await asyncio.gather(*(stores.users.delete_user(f"shopper-{n}") for n in range(10)))
        assert [name for name in files_with(b"shopper-7") if save or name != "dump.rdb"] == []
        assert await stores.users.delete_user("shopper-7") == 0

    opened(redis.url, scenario)
    with redis.client as client:
        info = client.info("persistence")
        assert info["aof_rewrites"] < 10  # one serves those that wait together


def test_redis_that_may_not_be_told_to_write_is_a_warning(
    own_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    redis = own_redis()
    with redis.client as client:
        client.acl_setuser("shop", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-@admin"])

    async def scenario(stores: Stores) -> None:
        assert stores.warning is None  # it may not look
        await stores.users.record([new("a", "1")])
        assert await stores.users.delete_user("u") == 1

    opened(redis.url.replace("//", "//shop:@"), scenario)
    assert "may not be told to write its files anew" in caplog.text


def test_files_that_take_long_to_write_make_the_caller_try_again(
    own_redis: Callable[..., RedisServer],
) -> None:
    redis = own_redis(**{"rdb-key-save-delay": "20000", "aof-use-rdb-preamble": "yes"})

    async def scenario(stores: Stores) -> None:
        await stores.users.record([new("a", "1", user=f"u{n}") for n in range(30)])
        with pytest.raises(StateUnavailable, match="still writing"):
            await stores.users.delete_user("u3")
        assert await stores.users.history("u3", 5) == []
        with redis.client as client:
            client.config_set("rdb-key-save-delay", 0)
        while True:
            try:
                assert await stores.users.delete_user("u3") == 0
                return
            except StateUnavailable:
                await asyncio.sleep(0.05)

    opened(redis.url, scenario, erase_seconds=0.3)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({}, None),
        ({"appendonly": "no"}, "appendonly no"),
        ({"appendfsync": "everysec"}, "appendfsync everysec"),
        ({"maxmemory": "100mb", "maxmemory-policy": "allkeys-lru"}, "maxmemory-policy allkeys-lru"),
    ],
)
def test_a_redis_that_may_lose_events_is_a_warning_in_one_line(
    servers: Servers, own_redis: Callable[..., RedisServer], settings: dict[str, str], says: str | None
) -> None:
    redis = own_redis(**settings)
    said = io.StringIO()
    servers.start(state=redis.url, console=Console(file=said))
    if says is None:
        assert said.getvalue() == ""
    else:
        assert said.getvalue().startswith(f"warning: redis://127.0.0.1:{redis.port}/0: it ")
        assert says in said.getvalue() and said.getvalue().count("\n") == 1


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


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("redis://127.0.0.1:1/0", r"state: redis://127\.0\.0\.1:1/0 cannot be used .*start Redis"),
        ("redis://:secret@127.0.0.1:1/0", r"state: redis://127\.0\.0\.1:1/0 cannot be used"),
        ("redis://127.0.0.1:port/0", "is not an address of a Redis"),
        ("postgres://shop:secret@host/db", "no kind of store is called 'postgres'"),
        ("unix:///nowhere/redis.sock", "state: unix:///nowhere/redis.sock cannot be used"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_readable_line(state: str, says: str) -> None:
    async def scenario(stores: Stores) -> None:
        raise AssertionError("it was opened")

    with pytest.raises(InputError, match=says) as caught:
        opened(state, scenario, timeout_seconds=1.0, retries=0)
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_addresses_are_named_without_secrets() -> None:
    assert safe_name("rediss://shop:secret@h:1/2?password=secret") == "rediss://h:1/2"
    assert safe_name("unix://shop:secret@/run/redis.sock?db=1") == "unix:///run/redis.sock"


def test_a_store_of_another_program_version_is_refused(own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis()

    async def nothing(stores: Stores) -> None:
        pass

    opened(redis.url, nothing)
    with redis.client as client:
        client.hset("shelfwise:store", "format", "99")
    with pytest.raises(InputError, match="holds a store of format 99"):
        opened(redis.url, nothing)
    opened(redis.url, nothing, prefix="shop-2:")
    with redis.client as client:
        client.set("shop-3:store", "mine")
    with pytest.raises(InputError, match="cannot be used"):
        opened(redis.url, nothing, prefix="shop-3:")


def test_two_shops_can_share_a_redis(own_redis: Callable[..., RedisServer]) -> None:
    redis = own_redis()

    def history(prefix: str) -> list[str]:
        async def scenario(stores: Stores) -> list[str]:
            await stores.users.record([new(f"of-{prefix}", "1")])
            return [e.item_id for e in await stores.users.history("u", 5)]

        return opened(redis.url, scenario, prefix=prefix)

    assert history("a:") == ["of-a:"]
    assert history("b:") == ["of-b:"]


def test_sockets_and_tls_work(own_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    port = free_port()
    redis = own_redis(
        **{
            "unixsocket": str(tmp_path / "s"),
            "tls-port": str(port),
            "tls-cert-file": str(tmp_path / "cert.pem"),
            "tls-key-file": str(tmp_path / "key.pem"),
            "tls-ca-cert-file": str(tmp_path / "ca.pem"),
            "tls-auth-clients": "no",
        }
    )

    async def record(stores: Stores) -> list[Outcome]:
        return await stores.users.record([new("a", "1")])

    assert opened(redis.url, record) == [Outcome.new]
    assert opened(f"unix://{tmp_path / 's'}", record) == [Outcome.duplicate]
    encrypted = f"rediss://localhost:{port}/0"
    assert opened(f"{encrypted}?ssl_ca_certs={tmp_path / 'ca.pem'}", record) == [Outcome.duplicate]
    with pytest.raises(InputError, match="cannot be used"):
        opened(encrypted, record, retries=0)


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
