"""Probes over HTTP, beside the metrics."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

from conf.errors import InputError
from conf.serving import MetricsConfig
from ranking.milvus.status import EngineStatus
from serving.observability.health import RELOAD_HEALTH, STATE_HEALTH
from serving.observability.http import HttpPort, serve_http
from tests.serving.conftest import Harness, Servers, event_loop, until
from tests.serving.fake_bundle import FakeBundle
from tests.serving.observability.test_metrics import free_port, scrape

FINE = {"model": True, "state": True, "reload": True, "candidates": True}


def get(port: int, path: str, method: str = "GET") -> tuple[int, Any]:
    """Return status and body."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - http only
            status, body = answer.status, answer.read()
    except urllib.error.HTTPError as error:
        status, body = error.code, error.read()
    return status, json.loads(body) if body.startswith(b"{") else body


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def probed(servers: Servers, port: int) -> Harness:
    return servers.start(metrics=MetricsConfig(port=port))


def test_a_server_that_serves_is_alive_and_ready(probed: Harness, port: int) -> None:
    assert get(port, "/livez") == (200, {"alive": True})
    assert get(port, "/readyz") == (200, {"ready": True, "checks": FINE, "failing": []})
    for check in FINE:
        assert get(port, f"/readyz/{check}") == (200, {"ready": True})
    assert get(port, "/readyz", "HEAD") == (200, b"")
    status, text = get(port, "/metrics")
    assert status == 200
    assert b"shelfwise_state_works 1.0" in text


@pytest.mark.parametrize(
    "path", ["/", "/metrics/", "/metricsx", "/readyz/", "/readyz/disk", "/favicon.ico", "/livez/x"]
)
def test_other_paths_are_not_found(probed: Harness, port: int, path: str) -> None:
    status, body = get(port, path)
    assert status == 404
    assert body["paths"] == [
        "/metrics", "/livez", "/readyz",
        "/readyz/model", "/readyz/state", "/readyz/reload", "/readyz/candidates",
    ]  # fmt: skip


def test_other_methods_are_refused(probed: Harness, port: int) -> None:
    assert get(port, "/metrics", "POST")[0] == 405
    assert get(port, "/readyz", "DELETE")[0] == 405


def test_a_failing_state_and_a_failed_reload_are_named_and_take_no_traffic_away(
    probed: Harness, port: int
) -> None:
    health = probed.running._health
    probed.call(health.set(False, RELOAD_HEALTH))
    assert get(port, "/readyz") == (
        200,
        {"ready": True, "checks": {**FINE, "reload": False}, "failing": ["reload"]},
    )
    assert get(port, "/readyz/reload") == (503, {"ready": False})
    probed.call(health.set(False, STATE_HEALTH))
    assert get(port, "/readyz")[1]["failing"] == ["state", "reload"]
    assert [get(port, f"/readyz/{check}")[0] for check in FINE] == [200, 503, 503, 200]
    probed.call(health.set(True, STATE_HEALTH, RELOAD_HEALTH))
    assert get(port, "/readyz")[1]["failing"] == []


def test_an_engine_that_does_not_answer_is_named_and_takes_no_traffic_away(
    servers: Servers, port: int
) -> None:
    bundle = FakeBundle()
    bundle.engine = EngineStatus(works=True)
    server = servers.start(live=bundle, metrics=MetricsConfig(port=port))
    assert get(port, "/readyz")[1]["failing"] == []
    bundle.engine = EngineStatus(
        False, "Milvus is away", failed_searches=3, timeouts=2, pending=7, pending_seconds=9.5, refused=1,
        untested=('title:"...": Milvus compares texts with their case',),
    )  # fmt: skip
    until(lambda: get(port, "/readyz")[1]["failing"] == ["candidates"])
    assert get(port, "/readyz")[0] == 200
    assert get(port, "/readyz/candidates") == (503, {"ready": False})
    values = {name: value for (name, _), value in scrape(port).items() if "candidate" in name}
    assert values == {
        "shelfwise_candidates_work": 0.0,
        "shelfwise_candidate_searches_failed": 3.0,
        "shelfwise_candidate_searches_timed_out": 2.0,
        "shelfwise_candidate_writes_pending": 7.0,
        "shelfwise_candidate_writes_pending_seconds": 9.5,
        "shelfwise_candidate_writes_refused": 1.0,
        "shelfwise_candidate_conditions_untested": 1.0,
    }
    bundle.engine = EngineStatus(works=True)
    until(lambda: get(port, "/readyz")[1]["failing"] == [])
    assert server.running.version == "v1"


def test_a_server_without_a_model_is_alive_and_not_ready(probed: Harness, port: int) -> None:
    probed.call(probed.running._health.set(False, ""))
    checks = {**FINE, "model": False}
    assert get(port, "/readyz") == (503, {"ready": False, "checks": checks, "failing": ["model"]})
    assert get(port, "/livez")[0] == 200


def test_a_draining_server_is_not_ready_and_stays_so(probed: Harness, port: int) -> None:
    probed.call(probed.running._health.drain())
    assert get(port, "/readyz")[1]["failing"] == ["model"]
    probed.call(probed.running._health.set(True, ""))
    assert get(port, "/readyz")[0] == 503
    assert get(port, "/livez")[0] == 200


def test_a_hung_event_loop_is_not_alive(probed: Harness, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serving.observability.health._STUCK_SECONDS", 1.5)

    async def hang() -> None:
        time.sleep(3.0)  # noqa: ASYNC251 - a blocked loop is what the probe detects

    stuck = asyncio.run_coroutine_threadsafe(hang(), event_loop())
    until(lambda: get(port, "/livez") == (503, {"alive": False}))
    stuck.result(20)
    until(lambda: get(port, "/livez") == (200, {"alive": True}))


def test_a_connection_that_sends_nothing_is_closed_without_a_traceback(
    probed: Harness, port: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("serving.observability.http._Handler.timeout", 0.2)
    with socket.create_connection(("127.0.0.1", port), timeout=10) as silent:
        silent.sendall(b"GET /readyz HTTP")
        assert silent.recv(100) == b""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as gone:
        gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # ends with a reset
    assert get(port, "/readyz")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_an_ipv6_address(probed: Harness) -> None:
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    app = HttpPort(probed.running.metrics.registry, probed.running._health)
    try:
        server = serve_http(app, "::1", 0)
    except InputError as error:
        pytest.skip(f"no address ::1 here: {error}")
    with urllib.request.urlopen(f"http://[::1]:{server._server.server_port}/livez", timeout=10) as answer:
        assert answer.status == 200
    server.close()
