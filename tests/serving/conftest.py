from __future__ import annotations

import asyncio
import gc
import io
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import grpc
import pytest
from grpc.aio import init_grpc_aio
from rich.console import Console

from conf.serving import LimitsConfig, ServeConfig
from serving.model.interfaces import LiveModel
from serving.model.process.starter import ModelStarter
from serving.model.reload import StopFirst
from serving.observability.logs import TextFormatter
from serving.running import RunningServer, start
from shelfwise_client import Client
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc
from tests.serving.backends import Backend
from tests.serving.fake_bundle import FakeBundle
from tests.serving.redis_server import RedisServer

T = TypeVar("T")


def until(condition: Callable[[], bool], seconds: float = 30) -> None:
    """Wait for a condition that another thread makes true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@dataclass
class Harness:
    """A real server on a real socket, in an event loop of its own thread."""

    model: FakeBundle
    """The served model, unless the test started the server with another."""
    running: RunningServer
    loop: asyncio.AbstractEventLoop
    stub: Any
    """Generated stub, for requests that the typed client cannot send."""
    store: Path

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.running.port}"

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(20)


@cache
def event_loop() -> asyncio.AbstractEventLoop:
    """The loop of everything asynchronous that speaks gRPC in the tests, in a thread of its own.

    grpc.aio has one queue of events per process, which every loop reads from; two loops at a time take each
    other's events, and now and then the process dies of it (grpc/grpc issue 25364). The queue goes when the
    last server or channel is collected, from whichever thread that happens in, while its poller still reads
    (issues 22365 and 43364): one more reference keeps it to the end of the process.
    """
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()  # to the end of the process
    asyncio.run_coroutine_threadsafe(_keep_grpc_queue(), loop).result(20)
    return loop


async def _keep_grpc_queue() -> None:
    init_grpc_aio()


def in_loop(coroutine: Coroutine[Any, Any, T], seconds: float = 20) -> T:
    """Run a coroutine beside the servers of the tests and return its result."""
    return asyncio.run_coroutine_threadsafe(coroutine, event_loop()).result(seconds)


PATIENT = LimitsConfig(max_queue_seconds=20.0, standing_queue_seconds=20.0)
"""For tests other than of load: a machine that runs several tests is slow, not overloaded."""


class Servers:
    """Starts servers and stops them at the end of the test."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self._started: list[tuple[RunningServer, grpc.Channel]] = []
        self._clients: list[Client] = []

    def client(self, harness: Harness, timeout: float = 10.0) -> Client:
        """Return a client that is closed at the end of the test.

        Channels of a process share connections by address. One that stays open goes on trying to reach its
        server when that has stopped, and a later server that gets the same port inherits its waiting time.
        """
        self._clients.append(Client(harness.address, timeout))
        return self._clients[-1]

    def start(
        self,
        model: FakeBundle | None = None,
        live: LiveModel | None = None,
        load: Callable[[str, bool], LiveModel] | None = None,
        console: Console | None = None,
        stop_first: StopFirst | None = None,
        **settings: Any,
    ) -> Harness:
        """Start a server on the fake bundle, or on another live model."""
        model = model or FakeBundle()
        open_to_tests = {
            "artifacts": str(self.store),
            "port": 0,
            "admin": True,
            "reflection": True,
            "limits": PATIENT,
        }
        config = ServeConfig(**{**open_to_tests, **settings})
        console = console or Console(file=io.StringIO())
        running = in_loop(start(config, lambda: live or model, console, load, stop_first))
        channel = grpc.insecure_channel(f"127.0.0.1:{running.port}")
        self._started.append((running, channel))
        stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
        model.recommender.batches.clear()
        model.recommender.seen.clear()
        return Harness(model, running, event_loop(), stub, Path(config.artifacts))

    def stop(self, harness: Harness) -> None:
        """Stop one server before the end of the test."""
        place = next(n for n, (running, _) in enumerate(self._started) if running is harness.running)
        running, channel = self._started.pop(place)
        channel.close()
        in_loop(running.stop(1.0))

    def close(self) -> None:
        for client in self._clients:
            client.close()
        for running, channel in self._started:
            channel.close()
            in_loop(running.stop(1.0))


@pytest.fixture(autouse=True)
def remains_are_left_alone() -> Iterator[None]:
    """Disable the cyclic garbage collector for objects that servers and channels of a test leave.

    Now and then a CallbackWrapper of grpc.aio still points to an object that is gone, and the process dies
    when a collection follows the pointer, many tests later. Frozen objects are not looked at any more. A
    server of a shop lives as long as its process, and tests of whole processes collect as usual.
    """
    gc.disable()
    yield
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def whole_lines(caplog: pytest.LogCaptureFixture) -> None:
    """Capture a server's log with its fields, for tests that search it."""
    caplog.handler.setFormatter(TextFormatter())


def fill_queue(server: Harness) -> list[Any]:
    """Block one list while it is made and queue another, which fills a queue with `max_queue=1`.

    Both are answered once the recommender's gate is open.
    """
    server.model.recommender.gate.clear()
    jobs, request = server.running._host.jobs, pb.RecommendRequest()
    held = [server.stub.Recommend.future(request, timeout=20)]
    until(lambda: jobs.busy and len(jobs) == 0)
    held.append(server.stub.Recommend.future(request, timeout=20))
    until(lambda: len(jobs) == 1)
    return held


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[Servers]:
    started = Servers(tmp_path)
    yield started
    started.close()


@pytest.fixture
def server(servers: Servers) -> Harness:
    return servers.start()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    yield server
    server.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts Redis servers that a test may stop and damage."""
    started: list[RedisServer] = []

    def begin(**settings: str) -> RedisServer:
        started.append(RedisServer(tmp_path / f"redis-{len(started)}", **settings))
        return started[-1]

    yield begin
    for server in started:
        server.close()


@pytest.fixture(params=["sqlite", "redis"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Backend:
    folder = tmp_path / "state"
    folder.mkdir()
    if request.param == "sqlite":
        return Backend(str(folder / "state.sqlite"), folder)
    server: RedisServer = request.getfixturevalue("redis_server")
    with server.client as client:
        client.flushall()
    return Backend(server.url, server.folder)


@pytest.fixture
def starter(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelStarter]:
    """Start models from a fork server of this test, whose output the test captures."""
    with closing(ModelStarter()) as starter:
        monkeypatch.setattr("serving.model.process.client._STARTER", starter)
        yield starter
