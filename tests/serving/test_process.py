"""The server as a process: start, crash, drain, and wrong configuration."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rich.console import Console

from conf.errors import InputError
from conf.serving import ServeConfig
from serving.server import serve
from shelfwise_client import Client, Event
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc
from tests.serving.fake_bundle import SLOW

ROOT = Path(__file__).parents[2]


class Process:
    """A server process."""

    def __init__(
        self,
        store: Path,
        port: int = 0,
        drain_seconds: float = 5.0,
        log_format: str = "text",
        state: str | None = None,
    ) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.serving.fake_server",
            str(store),
            str(port),
            str(drain_seconds),
            log_format,
            *([state] if state else []),
        ]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.first_line = self.process.stdout.readline().strip()
        found = re.fullmatch(r"listening on 127\.0\.0\.1:(\d+) model v1", self.first_line)
        self.port = int(found.group(1)) if found else 0
        self.address = f"127.0.0.1:{self.port}"

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal, wait, and return the exit status and standard error."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=20)
        return self.process.returncode, errors


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    started: list[Process] = []
    yield started
    for process in started:
        if process.process.poll() is None:
            process.end(signal.SIGKILL)


def record_until_it_ends(server: Process) -> tuple[list[str], threading.Thread]:
    """Record events one by one; return the growing list of acknowledged ids and the recording thread."""
    acknowledged: list[str] = []

    def send() -> None:
        with Client(server.address) as client:
            for number in range(10_000):
                try:
                    client.record_events([Event("u", "i7", "click", event_id=f"e{number}")], timeout=2)
                except Exception:
                    return
                acknowledged.append(f"e{number}")

    sender = threading.Thread(target=send)
    sender.start()
    return acknowledged, sender


def test_acknowledged_events_survive_sigkill(tmp_path: Path, processes: list[Process]) -> None:
    first = Process(tmp_path)
    processes.append(first)
    acknowledged, sender = record_until_it_ends(first)
    while len(acknowledged) < 50:
        time.sleep(0.001)
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    sender.join()

    second = Process(tmp_path)
    processes.append(second)
    with Client(second.address) as client:
        stored = client.status().event_count
        again = [Event("u", "i7", "click", event_id=name) for name in acknowledged[:1000]]
        result = client.record_events(again)
    assert stored >= len(acknowledged) >= 50
    assert (result.new_count, result.duplicate_count) == (0, len(again))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_running_calls_and_exits_cleanly(
    tmp_path: Path, processes: list[Process], number: signal.Signals
) -> None:
    server = Process(tmp_path)
    processes.append(server)
    with grpc.insecure_channel(server.address) as channel:
        stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(), timeout=15)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        slow = stub.Recommend.future(pb.RecommendRequest(session={"intent": SLOW}), timeout=10)
        stub.GetStatus(pb.GetStatusRequest(), timeout=10)  # answered, so the call before it has arrived
        started = time.monotonic()
        code, errors = server.end(number)
        elapsed = time.monotonic() - started
        assert len(slow.result().items) == 20
        assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert code == 0
    assert "Traceback" not in errors
    assert elapsed < 4.0  # an open health watch does not use up the five seconds of drain time


def test_calls_that_outlast_the_drain_time_are_cancelled(tmp_path: Path, processes: list[Process]) -> None:
    server = Process(tmp_path, drain_seconds=0.0)
    processes.append(server)
    with grpc.insecure_channel(server.address) as channel:
        stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
        slow = stub.Recommend.future(pb.RecommendRequest(session={"intent": SLOW}), timeout=10)
        stub.GetStatus(pb.GetStatusRequest(), timeout=10)  # answered, so the call before it has arrived
        code, errors = server.end(signal.SIGTERM)
        assert slow.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    assert code == 0
    assert "Traceback" not in errors


def test_requests_are_logged_to_standard_error(tmp_path: Path, processes: list[Process]) -> None:
    server = Process(tmp_path)
    processes.append(server)
    with Client(server.address) as client:
        status = client.status()
    code, errors = server.end(signal.SIGTERM)
    assert (status.model_version, code) == ("v1", 0)
    fields = r"request_id=[0-9a-f]{32} method=GetStatus code=OK duration_ms=\d+\.\d"
    assert re.search(rf"INFO serving\.transport\.call_interceptor GetStatus OK {fields}\n", errors)


def test_a_taken_port_is_one_readable_line(tmp_path: Path, processes: list[Process]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = Process(tmp_path, port=port)
        processes.append(server)
        code, _ = server.wait()
    assert code == 2
    assert server.first_line.startswith(f"cannot listen on 127.0.0.1:{port}: the port is taken")


def test_two_servers_cannot_share_a_port(tmp_path: Path, processes: list[Process]) -> None:
    first = Process(tmp_path)
    processes.append(first)
    second = Process(tmp_path, port=first.port)
    processes.append(second)
    assert second.wait()[0] == 2


def test_a_file_that_is_no_user_state_is_one_readable_line(tmp_path: Path, processes: list[Process]) -> None:
    (tmp_path / "state.sqlite").write_bytes(os.urandom(8192))
    server = Process(tmp_path)
    processes.append(server)
    assert server.wait()[0] == 2
    assert "state.sqlite: cannot be used as user state" in server.first_line


def test_a_store_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}: no CURRENT here")):
        serve(ServeConfig(artifacts=str(tmp_path)), Console())
