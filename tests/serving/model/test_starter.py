"""The fork server."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from multiprocessing import Pipe
from pathlib import Path

import pytest

from features.data.dataset import Dataset
from serving.model.process.client import RemoteModel
from serving.model.process.starter import ModelStarter
from tests.processes import children
from tests.serving.conftest import until
from tests.serving.model_stores import publish_model, start_message


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset, bert: Path) -> Path:
    return publish_model(tmp_path_factory.mktemp("started"), dataset, bert)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_models_come_from_one_process_that_is_started_once(store: Path, starter: ModelStarter) -> None:
    first, second = RemoteModel(start_message(store)), RemoteModel(start_message(store))
    assert parent(first.process.pid) == parent(second.process.pid) != os.getpid()
    assert parent(parent(first.process.pid)) == os.getpid()
    first.close()
    assert first.process.ended.wait(10)
    assert second.works


def test_a_starter_that_was_killed_is_replaced_and_takes_no_model_along(
    store: Path, starter: ModelStarter
) -> None:
    first = RemoteModel(start_message(store))
    killed = parent(first.process.pid)
    os.kill(killed, signal.SIGKILL)
    until(lambda: killed not in children(os.getpid()))
    second = RemoteModel(start_message(store))
    assert first.works
    assert second.works
    assert parent(second.process.pid) != killed


def test_signals_to_all_processes_leave_it_there(store: Path, starter: ModelStarter) -> None:
    first = RemoteModel(start_message(store))
    os.kill(parent(first.process.pid), signal.SIGTERM)
    os.kill(parent(first.process.pid), signal.SIGINT)
    second = RemoteModel(start_message(store))
    assert parent(first.process.pid) == parent(second.process.pid)


def test_where_it_cannot_fork_every_model_has_a_process_of_its_own(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(ModelStarter(forks=False)) as starter:
        monkeypatch.setattr("serving.model.process.client._STARTER", starter)
        first, second = RemoteModel(start_message(store)), RemoteModel(start_message(store))
        assert parent(first.process.pid) == parent(second.process.pid) == os.getpid()
        assert first.process.pid != second.process.pid


@pytest.mark.parametrize("sooner", [True, False])
def test_a_process_that_ends_while_it_loads_is_an_error(
    store: Path, monkeypatch: pytest.MonkeyPatch, sooner: bool
) -> None:
    before = set(children(os.getpid()))
    monkeypatch.setattr("sys.executable", "/bin/false")
    with closing(ModelStarter()) as starter:
        monkeypatch.setattr("serving.model.process.client._STARTER", starter)
        if sooner:  # one that has ended before it is asked for a second model
            starter.start()
            until(lambda: before.issuperset(children(os.getpid())))
        with pytest.raises(RuntimeError, match="ended before its model was loaded"):
            RemoteModel(start_message(store))


def test_a_process_that_nobody_waits_for_ends_without_a_word(
    starter: ModelStarter, capfd: pytest.CaptureFixture[str]
) -> None:
    alive, alive_there = Pipe(duplex=False)
    lists, lists_there = Pipe()
    changes, changes_there = Pipe()
    lists.close()
    changes.close()
    starter.start(lists_there.fileno(), changes_there.fileno(), alive_there.fileno())
    for connection in (lists_there, changes_there, alive_there):
        connection.close()
    assert alive.poll(60)
    with pytest.raises(EOFError):
        alive.recv()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("imported", [False, True])
def test_imports_end_with_a_server_that_is_gone(imported: bool) -> None:
    """Of a process that would import for a minute; once it is done, nothing watches any more."""
    code = (
        "import sys, threading, time\n"
        "from serving.model.process.starter import end_with_server\n"
        "done = threading.Event()\n"
        "watching = threading.Thread(target=end_with_server, args=(int(sys.argv[1]), done), daemon=True)\n"
        "watching.start()\n"
        "if sys.argv[2] == 'True':\n"
        "    done.set(), watching.join()\n"
        "print(flush=True)\n"
        "sys.stdin.readline() if done.is_set() else time.sleep(60)\n"
        "sys.exit(3)\n"
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", code, str(theirs.fileno()), str(imported)],
            pass_fds=(theirs.fileno(),), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
    with process:
        if imported:
            time.sleep(0.5)
            assert process.poll() is None
            process.communicate(b"\n")
        assert process.wait(30) == (3 if imported else 0)
