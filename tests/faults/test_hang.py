"""A model's process that hangs: responses, health, log and recovery."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from shelfwise_client import Client, Event, RecommendQuery, ServiceError
from tests.faults.conftest import Processes
from tests.faults.server_process import ServerProcess
from tests.processes import children

TIMEOUT = 3.0
"""Seconds."""


def model_of(server: ServerProcess) -> int:
    (starter,) = children(server.process.pid)
    (model,) = children(starter)
    return model


def test_a_stopped_model_process_is_killed_and_replaced(processes: Processes, trained_store: Path) -> None:
    server = processes.start(
        store=trained_store, real=True, reload_seconds=0.1, model_timeout_seconds=TIMEOUT
    )
    model = model_of(server)
    with Client(server.address, timeout=20.0) as client, grpc.insecure_channel(server.address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        health: list[int] = []
        codes: set[str] = set()
        client.record_events([Event("somebody", "i1", "click")])
        version = client.status().model_version
        os.kill(model, signal.SIGSTOP)
        deadline = time.monotonic() + 60
        items: list[object] = []
        while not items or 2 not in health:
            assert time.monotonic() < deadline, (codes, health, server.err.read_text())
            health.append(check(health_pb2.HealthCheckRequest()).status)
            try:
                page = client.recommend(RecommendQuery(user_id="somebody", page_size=3))
                items = list(page.items)
            except ServiceError as error:
                codes.add(error.reason or error.code.name)
            time.sleep(0.01)
        assert codes <= {"MODEL_RESTARTING", "OVERLOADED"}
        assert page.degradation == "none"
        assert model_of(server) != model
        while check(health_pb2.HealthCheckRequest()).status != 1:
            assert time.monotonic() < deadline
    assert not Path(f"/proc/{model}").exists()
    said = server.err.read_text()
    assert said.count(f"({model}) has sent no sign of life for 3 seconds and is killed") == 1
    assert said.count(f"the process of model {version} has ended") == 1
    assert server.stop() == 0


def test_a_machine_that_was_suspended_goes_on_with_its_model(
    processes: Processes, trained_store: Path
) -> None:
    server = processes.start(store=trained_store, real=True, model_timeout_seconds=TIMEOUT)
    model = model_of(server)
    with Client(server.address, timeout=20.0) as client:
        assert len(client.recommend(RecommendQuery(page_size=3)).items) == 3
        for pid in (model, server.process.pid):
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2 * TIMEOUT)
        for pid in (server.process.pid, model):  # the server finds it silent at first
            os.kill(pid, signal.SIGCONT)
        assert len(client.recommend(RecommendQuery(page_size=3)).items) == 3
        time.sleep(TIMEOUT)
    assert model_of(server) == model
    assert "is killed" not in server.err.read_text()
    assert server.stop() == 0
