"""Streams of BatchRecommend: backpressure, priority, termination, and clients that resume them."""

from __future__ import annotations

import io
import threading
import time
from typing import Any

import grpc
import pytest
from rich.console import Console

from conf.serving import ServeConfig
from serving.running import start
from serving.state.contracts.user_state import NewEvent
from shelfwise_client import AsyncClient, BatchQuery, Client, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc
from tests.serving.conftest import Harness, Servers, in_loop, until
from tests.serving.fake_bundle import FakeBundle
from tests.serving.list_streams import fill, name_of, named, refused, stream

MANY = 10_000


def made(server: Harness) -> int:
    return len(server.model.recommender.seen)


def test_a_stream_broken_in_the_middle_goes_on_without_gap_or_repeat(servers: Servers) -> None:
    """The server is replaced twice; users are added and erased in between."""
    server = servers.start()
    fill(server, MANY)
    port = server.running.port
    seen: list[str] = []
    with Client(server.address) as client:
        lists = client.batch_recommend(BatchQuery(list_size=1))
        for restart in (700, 4000):
            while len(seen) < restart:
                seen.append(next(lists).user_id)
            servers.stop(server)
            server = servers.start(port=port)
            state = server.running.service._state
            server.call(state.delete_user(seen[-1]))
            server.call(state.delete_user(name_of(MANY - 1)))
            server.call(state.record([NewEvent("user-00000-late", "i1", "click", 1, f"client:{restart}")]))
            server.call(state.record([NewEvent("user-09000-late", "i1", "click", 1, f"client:{restart}")]))
        seen += [found.user_id for found in lists]
    expected = [name_of(n) for n in range(MANY - 1)]
    expected.insert(9001, "user-09000-late")
    assert seen == expected


def test_the_server_does_not_run_ahead_of_a_slow_reader(server: Harness) -> None:
    fill(server, MANY)
    responses: Any = stream(server)
    next(responses)
    settled, last = 0, -1
    while settled < 5:  # until half a second passes without a list
        time.sleep(0.1)
        settled = settled + 1 if made(server) == last else 0
        last = made(server)
    # 20 items with texts are some 6 kB: what the transport buffers is some hundred lists.
    assert last < MANY // 4
    assert server.running.service._batches._running == 1
    for reached in range(1, last + 100):  # and then it goes on, at the reader's pace
        assert next(responses).user_id == name_of(reached)
    responses.cancel()


def test_a_reader_that_goes_away_ends_the_work(server: Harness) -> None:
    fill(server, MANY)
    responses: Any = stream(server)
    next(responses)
    responses.cancel()
    until(lambda: server.running.service._batches._running == 0)
    until(lambda: server.running._calls._running == 0)
    until(lambda: not server.running.service._host.jobs.busy)  # a batch that was under way is finished
    count = made(server)
    time.sleep(0.3)
    assert made(server) == count < MANY // 4
    list(stream(server, user_list=named("u")))


def test_a_deadline_ends_the_stream_as_one(server: Harness) -> None:
    fill(server, 2000)
    server.model.recommender.gate.clear()
    responses = server.stub.BatchRecommend(pb.BatchRecommendRequest(all_users=True), timeout=0.3)
    with pytest.raises(grpc.RpcError) as caught:
        list(responses)
    server.model.recommender.gate.set()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    until(lambda: server.running.service._batches._running == 0)


def test_requests_of_shoppers_come_before_waiting_lists_of_a_batch(server: Harness) -> None:
    """While the model is held up, a batch and twenty shoppers wait; the shoppers are served first."""
    fill(server, 100)
    recommender = server.model.recommender
    recommender.gate.clear()
    held = threading.Thread(target=lambda: server.stub.Recommend(pb.RecommendRequest(user_id="first")))
    held.start()
    jobs = server.running.service._host.jobs
    until(lambda: jobs.busy and len(jobs) == 0)
    users = named(*[name_of(n) for n in range(8)])
    batch = threading.Thread(target=lambda: list(stream(server, user_list=users, list_size=7)))
    batch.start()
    until(lambda: len(jobs._policy._lanes["background"]) == 8)
    shoppers = [
        threading.Thread(target=lambda: server.stub.Recommend(pb.RecommendRequest(page_size=3)))
        for _ in range(20)
    ]
    for thread in shoppers:
        thread.start()
    until(lambda: len(jobs) == 20)
    recommender.gate.set()
    for thread in (held, batch, *shoppers):
        thread.join()
    assert [request.k for request in recommender.seen] == [21] + [4] * 20 + [8] * 8


def test_lists_are_made_in_small_batches(server: Harness) -> None:
    fill(server, 50)
    list(stream(server))
    assert max(server.model.recommender.batches) <= 8


def test_more_streams_than_allowed_are_refused_until_one_ends(servers: Servers) -> None:
    server = servers.start(max_streams=2)
    fill(server, 5000)
    open_streams: list[Any] = [stream(server), stream(server)]
    for responses in open_streams:
        next(responses)
    error = refused(server)
    assert (error.code, error.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    assert error.retry_seconds == 10.0
    open_streams[0].cancel()
    until(lambda: server.running.service._batches._running == 1)
    assert next(stream(server)).user_id == name_of(0)


def test_a_server_that_stops_ends_streams_at_once_and_in_order(servers: Servers) -> None:
    server = servers.start()
    fill(server, MANY)
    channel = grpc.insecure_channel(server.address)
    stub: Any = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
    responses = stub.BatchRecommend(pb.BatchRecommendRequest(all_users=True, list_size=1), timeout=60)
    next(responses)
    ends: list[ServiceError] = []

    def read() -> None:
        try:
            list(responses)
        except grpc.RpcError as error:
            ends.append(ServiceError.of(error))

    reader = threading.Thread(target=read)
    reader.start()
    server.model.recommender.gate.clear()  # in the middle of a handful
    count = -1
    while count < made(server):
        count = made(server)
        time.sleep(0.1)
    stopping = threading.Thread(target=lambda: servers.stop(server))
    stopping.start()
    until(lambda: server.running.service._batches._ending)
    server.model.recommender.gate.set()
    reader.join()
    stopping.join()
    channel.close()
    assert [(end.code, end.reason) for end in ends] == [(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")]
    assert made(server) < MANY


def test_a_closed_client_ends_its_streams_and_does_not_start_others(server: Harness) -> None:
    fill(server, MANY)
    client = Client(server.address)
    lists = client.batch_recommend(BatchQuery())
    next(lists)
    client.close()
    with pytest.raises(ServiceError) as caught:
        list(lists)
    assert caught.value.code is grpc.StatusCode.CANCELLED


def test_another_model_takes_over_in_the_middle(servers: Servers) -> None:
    server = servers.start()
    fill(server, 3000)
    responses = stream(server)
    versions = [next(responses).model_version]
    host = server.running.service._host

    async def swap() -> None:
        later = FakeBundle("v2")
        await host.load(later, type(host.served).of(later))

    server.call(swap())
    versions += [response.model_version for response in responses]
    assert len(versions) == 3000
    assert versions == sorted(versions)
    assert set(versions) == {"v1", "v2"}


def test_the_clients_read_a_batch_and_its_errors(server: Harness) -> None:
    fill(server, 5)

    async def asynchronous() -> list[str]:
        async with AsyncClient(server.address) as client:
            return [found.user_id async for found in client.batch_recommend(BatchQuery(max_users=3))]

    assert in_loop(asynchronous()) == [name_of(n) for n in range(3)]
    with Client(server.address) as client:
        found = list(client.batch_recommend(BatchQuery(user_ids=("", "u"), list_size=1)))
        assert found[0].error is not None
        assert found[0].error.reason == "INVALID_FIELD"
        assert (found[0].degradation, found[1].degradation) == ("", "popularity")
        with pytest.raises(ServiceError) as caught:
            list(client.batch_recommend(BatchQuery(filter="nope = 1")))
        assert caught.value.reason == "FILTER_INVALID"
        early = client.batch_recommend(BatchQuery())
        next(early)
        early.close()  # type: ignore[attr-defined]
    until(lambda: server.running.service._batches._running == 0)


def test_the_asynchronous_client_goes_on_after_a_restart(servers: Servers) -> None:
    first = servers.start()
    fill(first, 3000)
    port = first.running.port
    servers.stop(first)

    async def scenario() -> list[str]:
        config = ServeConfig(artifacts=str(servers.store), port=port, admin=True)
        running = await start(config, FakeBundle, Console(file=io.StringIO()))
        seen: list[str] = []
        async with AsyncClient(f"127.0.0.1:{port}") as client:
            async for found in client.batch_recommend(BatchQuery(list_size=1, max_users=2500)):
                seen.append(found.user_id)
                if len(seen) == 500:
                    await running.stop(0.0)
                    running = await start(config, FakeBundle, Console(file=io.StringIO()))
        await running.stop(0.0)
        return seen

    assert in_loop(scenario(), 60) == [name_of(n) for n in range(2500)]


def test_a_client_gives_up_where_no_server_comes_back(
    server: Harness, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shelfwise_client.streams.ATTEMPTS", 1)
    fill(server, 2000)
    with Client(server.address) as client:
        lists = client.batch_recommend(BatchQuery())
        next(lists)
        servers.stop(server)
        with pytest.raises(ServiceError) as caught:
            list(lists)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
