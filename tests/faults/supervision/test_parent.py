"""Workers and their parent: whatever ends, nothing is left behind, and a start on the same port works."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from shelfwise_client import Client, RecommendQuery
from tests.faults.conftest import Processes
from tests.faults.server_process import ServerProcess
from tests.processes import children, descendants, runs
from tests.serving.conftest import until


def port(server: ServerProcess) -> int:
    return int(server.address.rpartition(":")[2])


@pytest.fixture
def server(processes: Processes, trained_store: Path) -> ServerProcess:
    """Two workers, both with a model."""
    started = processes.start(store=trained_store, real=True, workers=2)
    until(
        lambda: len(descendants(started.process.pid)) == 6, 120
    )  # a worker, its fork server, a model: twice
    return started


def test_workers_and_models_of_a_killed_parent_end_and_a_restart_works_at_once(
    processes: Processes, trained_store: Path, server: ServerProcess
) -> None:
    below = descendants(server.process.pid)
    os.kill(below[0], signal.SIGSTOP)  # a worker that cannot notice anything ends, too
    server.kill()
    again = processes.start(store=trained_store, real=True, workers=2, port=port(server))
    assert port(again) == port(server)
    until(lambda: not any(map(runs, below)), 10)
    with Client(again.address, timeout=20) as client:
        assert len(client.recommend(RecommendQuery(page_size=3)).items) == 3


def test_a_worker_whose_parent_is_killed_while_it_starts_ends(
    processes: Processes, trained_store: Path
) -> None:
    for seconds in (0.0, 0.5, 2.0):
        starting = processes.begin(processes.command(store=trained_store, real=True, workers=2))
        until(lambda pid=starting.process.pid: bool(children(pid)), 60)  # type: ignore[misc]
        time.sleep(seconds)
        below = descendants(starting.process.pid)
        starting.kill()
        until(lambda below=below: not any(map(runs, below)), 60)  # type: ignore[misc]


def test_a_killed_workers_model_ends_and_another_worker_starts(server: ServerProcess) -> None:
    victim = children(server.process.pid)[0]
    below = descendants(victim)
    os.kill(victim, signal.SIGKILL)
    until(lambda: not any(map(runs, [victim, *below])), 20)
    until(lambda: len(descendants(server.process.pid)) == 6, 120)


def test_workers_serve_while_their_parent_is_stopped(server: ServerProcess) -> None:
    os.kill(server.process.pid, signal.SIGSTOP)
    victim = children(server.process.pid)[1]
    os.kill(victim, signal.SIGKILL)
    with Client(server.address, timeout=20) as client:
        for _ in range(10):
            assert len(client.recommend(RecommendQuery(page_size=3)).items) == 3
    os.kill(server.process.pid, signal.SIGCONT)
    until(lambda: len(descendants(server.process.pid)) == 6, 120)
    assert server.stop() == 0


def test_a_hangup_reads_files_again_and_ends_nothing(processes: Processes) -> None:
    surfaces = processes.store.parent / "surfaces.yaml"
    surfaces.write_text("home: {diversity: 0.2}\n")
    server = processes.start(surfaces=str(surfaces))
    with Client(server.address, timeout=20) as client:
        for _ in range(3):
            server.process.send_signal(signal.SIGHUP)
        until(
            lambda: "files are read again: CURRENT, surfaces, experiments, keys" in server.err.read_text(), 20
        )
        assert len(client.recommend(RecommendQuery(page_size=3)).items) == 3
    assert server.stop() == 0
