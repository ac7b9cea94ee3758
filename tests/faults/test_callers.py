"""Clients that disappear, flood, read slowly or only keep connections open."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from conf.serving import LimitsConfig
from serving.transport import channel_options
from shelfwise_client import Client, RecommendQuery, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc
from tests.faults.changing_bundle import ChangingBundle
from tests.faults.server_process import ROOT
from tests.serving.conftest import Harness, Servers, until
from tests.serving.transport.test_security import GOOD, METHODS


def settle(server: Harness) -> None:
    """Wait until no call is running or queued."""
    until(lambda: server.running._calls._running == 0 and len(server.running._host.jobs) == 0)


@contextlib.contextmanager
def stuck(server: Harness) -> Iterator[None]:
    """Block the model with one request until the end of the block."""
    gate = server.model.recommender.gate
    gate.clear()
    try:
        alone = (("grpc.use_local_subchannel_pool", 1),)  # a connection of its own
        with grpc.insecure_channel(server.address, options=alone) as channel:
            stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
            first = stub.Recommend.future(pb.RecommendRequest(), timeout=30)
            until(lambda: server.running._host.jobs.busy and len(server.running._host.jobs) == 0)
            assert server.running._calls._running == 1
            yield
            gate.set()
            assert len(first.result().items) == 20
    finally:
        gate.set()


def test_callers_that_give_up_make_room_for_others(servers: Servers) -> None:
    # Only their number counts: on a busy machine the four may come more than half a second apart.
    server = servers.start(max_queue=4, limits=LimitsConfig(max_queue_seconds=20))
    with stuck(server), grpc.insecure_channel(server.address) as channel:
        stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(5):  # five times the room
            waiting = [stub.Recommend.future(pb.RecommendRequest(), timeout=30) for _ in range(4)]
            until(lambda: len(server.running._host.jobs) == 4)
            with pytest.raises(grpc.RpcError) as caught:
                stub.Recommend(pb.RecommendRequest(), timeout=10)
            assert ServiceError.of(caught.value).reason == "OVERLOADED"
            for call in waiting:
                call.cancel()
            until(lambda: len(server.running._host.jobs) == 0)
        kept = stub.Recommend.future(pb.RecommendRequest(), timeout=30)
        until(lambda: len(server.running._host.jobs) == 1)
        server.model.recommender.gate.set()
        assert len(kept.result().items) == 20
    settle(server)
    assert sum(server.model.recommender.batches) == 2  # nothing was worked out for those who had gone


CALLER = """
import sys, grpc
from shelfwise_client.v1 import recommendations_pb2 as pb, recommendations_pb2_grpc as pb_grpc
stub = pb_grpc.RecommendationServiceStub(grpc.insecure_channel(sys.argv[1]))
calls = [stub.Recommend.future(pb.RecommendRequest()) for _ in range(20)]
calls[0].result()
"""


def test_a_caller_that_is_killed_leaves_nothing_behind(server: Harness) -> None:
    with stuck(server):
        caller = subprocess.Popen([sys.executable, "-c", CALLER, server.address], cwd=ROOT)
        until(lambda: server.running._calls._running == 21)
        caller.send_signal(signal.SIGKILL)
        caller.wait()
        until(lambda: server.running._calls._running == 1)
        assert len(server.running._host.jobs) == 0
    settle(server)
    assert sum(server.model.recommender.batches) == 1


def answered(server: Harness) -> bool:
    """Request a list; return False if it is refused for overload."""
    with Client(server.address) as client:
        try:
            return len(client.recommend(RecommendQuery()).items) == 20
        except ServiceError as error:
            if error.reason != "OVERLOADED":
                raise
            return False


def test_thousands_of_calls_cancelled_at_once_leave_nothing_behind(server: Harness) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
        for _ in range(10):
            calls = [stub.Recommend.future(pb.RecommendRequest(), timeout=30) for _ in range(200)]
            for call in calls:
                call.cancel()
    # Calls that were announced and never came count as waiting for a moment, which refuses others.
    until(lambda: answered(server), 30)
    settle(server)
    assert answered(server)


def test_a_deadline_of_a_millisecond_ends_in_time_and_does_no_harm(servers: Servers) -> None:
    model = ChangingBundle()
    server = servers.start(model, live=model)
    event = pb.Event(user_id="v", item_id="i1", event="click", event_id="e")
    requests = {**GOOD, "RecordEvents": pb.RecordEventsRequest(events=[event])}
    codes: set[grpc.StatusCode] = set()
    for method in METHODS:
        for _ in range(25):
            started = time.monotonic()
            try:
                answer: Any = getattr(server.stub, method)(requests[method], timeout=0.001)
                if hasattr(answer, "__next__"):
                    list(answer)  # a stream fails only when it is read
            except grpc.RpcError as error:
                if method != "DeleteItems":  # whose request is a wrong one
                    codes.add(error.code())
            assert time.monotonic() - started < 5
    assert codes == {grpc.StatusCode.DEADLINE_EXCEEDED}
    settle(server)
    response = server.stub.RecordEvents(requests["RecordEvents"], timeout=10)
    assert response.new_count + response.duplicate_count == 1
    assert server.stub.GetStatus(pb.GetStatusRequest(), timeout=10).event_count == 1


class Proxy:
    """Proxies bytes between a client and the server, until it stops reading the server's."""

    def __init__(self, port: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._muted = threading.Event()
        self._port = port
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self.server: socket.socket

    def _run(self) -> None:
        self._caller, _ = self._listener.accept()
        self.server = socket.create_connection(("127.0.0.1", self._port))
        back = threading.Thread(target=self._back, daemon=True)
        back.start()
        with contextlib.suppress(OSError):
            while data := self._caller.recv(65536):
                self.server.sendall(data)
        back.join()

    def _back(self) -> None:
        self.server.settimeout(0.01)
        while not self._muted.is_set():
            try:
                data = self.server.recv(65536)
            except TimeoutError:
                continue
            self._caller.sendall(data)

    def mute(self) -> None:
        self._muted.set()

    def ended_by_server(self) -> bool:
        """Read what the server sent until it closes."""
        self.server.settimeout(15)
        with contextlib.suppress(ConnectionError):
            while self.server.recv(65536):
                pass
        return True

    def close(self) -> None:
        for each in (self._listener, self._caller, self.server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._thread.join(5)


def test_a_caller_that_stops_reading_is_found_out(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("grpc.keepalive_time_ms", "grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms")
    assert sum(channel_options.OPTIONS[name] for name in names) <= 60_000
    quick = dict.fromkeys(names, 300)
    monkeypatch.setattr(channel_options, "OPTIONS", {**channel_options.OPTIONS, **quick})
    server = servers.start()
    proxy = Proxy(server.running.port)
    with stuck(server), grpc.insecure_channel(proxy.address) as channel:
        stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
        stub.GetStatus(pb.GetStatusRequest(), timeout=10)
        waiting = [stub.Recommend.future(pb.RecommendRequest()) for _ in range(5)]
        until(lambda: server.running._calls._running == 6)
        proxy.mute()
        until(lambda: server.running._calls._running == 1)
        assert proxy.ended_by_server()
        proxy.close()
        assert all(call.code() is grpc.StatusCode.UNAVAILABLE for call in waiting)
    settle(server)


def test_calls_of_one_connection_are_limited_and_all_are_answered(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 100 <= channel_options.OPTIONS["grpc.max_concurrent_streams"] <= 10_000
    monkeypatch.setattr(
        channel_options, "OPTIONS", {**channel_options.OPTIONS, "grpc.max_concurrent_streams": 5}
    )
    server = servers.start()
    pages: list[int] = []
    with stuck(server), Client(server.address, timeout=30.0) as client:
        client.status()  # the connection knows its limits
        asking = [
            threading.Thread(target=lambda: pages.append(len(client.recommend(RecommendQuery()).items)))
            for _ in range(40)
        ]
        for each in asking:
            each.start()
        until(lambda: server.running._calls._running >= 6)
        with grpc.insecure_channel(server.address) as other:  # another connection has its own room
            stub = pb_grpc.RecommendationServiceStub(other)  # type: ignore[no-untyped-call]
            stub.GetStatus(pb.GetStatusRequest(), timeout=10)
        assert server.running._calls._running == 6  # five, and the one that keeps the model busy
        server.model.recommender.gate.set()
        for each in asking:
            each.join()
    assert pages == [20] * 40


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""HTTP/2 connection preface with empty settings."""


@pytest.mark.parametrize("says", [b"", b"GET / HTTP/1.1\r\n", PREFACE, b"\x16\x03\x01" + b"\0" * 50])
def test_hundreds_of_silent_connections_are_closed_and_nobody_notices(
    servers: Servers, monkeypatch: pytest.MonkeyPatch, says: bytes
) -> None:
    assert channel_options.OPTIONS["grpc.server_handshake_timeout_ms"] <= 30_000
    quick = {"grpc.server_handshake_timeout_ms": 700, "grpc.max_connection_idle_ms": 700}
    monkeypatch.setattr(channel_options, "OPTIONS", {**channel_options.OPTIONS, **quick})
    server = servers.start()
    silent: list[socket.socket] = []
    try:
        for _ in range(300):
            each = socket.create_connection(("127.0.0.1", server.running.port), timeout=15)
            silent.append(each)
            each.sendall(says)
        with Client(server.address) as client:
            for _ in range(20):
                assert len(client.recommend(RecommendQuery(), timeout=5.0).items) == 20
        for each in silent:
            with contextlib.suppress(ConnectionError):
                while each.recv(65536):
                    pass  # settings and a good-bye; then the end, or a time-out that fails the test
    finally:
        for each in silent:
            each.close()
    settle(server)


def test_answers_to_wrong_bytes_end_the_connection_and_not_the_server(server: Harness) -> None:
    for garbage in (b"\xff" * 5000, PREFACE + b"\xff" * 5000, PREFACE + b"\0\0\4\10\0\0\0\0\0\0\0\0\0" * 500):
        address = ("127.0.0.1", server.running.port)
        with socket.create_connection(address, timeout=15) as each, contextlib.suppress(ConnectionError):
            each.sendall(garbage)
            each.shutdown(socket.SHUT_WR)
            while each.recv(65536):
                pass
    with Client(server.address) as client:
        assert len(client.recommend(RecommendQuery()).items) == 20
