"""SIGKILL during writes: acknowledged writes survive, and none is partial."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from conf.errors import InputError
from features.files.file_replacement import file_replacement
from ranking.bundle.store import VERSIONS, current_version, publish_version, verify, versions
from shelfwise_client import Client, Event, Item, RecommendQuery, ServiceError, SimilarQuery
from tests.faults.conftest import Processes
from tests.faults.server_process import ROOT, ServerProcess
from tests.processes import children, runs
from tests.serving.api.test_delete_user import files_with, write_histories
from tests.serving.conftest import until

WRITERS = 4
BATCH = 3
KILLS = 3


class Writers:
    """Threads that write until the server has ended, and record acknowledgements."""

    def __init__(self, address: str, write: Callable[[Client, str], None], prefix: str) -> None:
        self.sent: list[str] = []
        self.acknowledged: list[str] = []
        self._write = write
        self._threads = [
            threading.Thread(target=self._run, args=(address, f"{prefix}-{number}"))
            for number in range(WRITERS)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, address: str, name: str) -> None:
        with Client(address, timeout=2.0) as client:
            for number in itertools.count():
                self.sent.append(f"{name}-{number}")
                try:
                    self._write(client, f"{name}-{number}")
                except ServiceError:
                    return
                self.acknowledged.append(f"{name}-{number}")

    def kill_after(self, server: ServerProcess, count: int) -> None:
        """Kill the server once so many writes have been acknowledged, in the middle of others."""
        deadline = time.monotonic() + 60
        while len(self.acknowledged) < count:
            assert time.monotonic() < deadline, "nothing is written"
            time.sleep(0.001)
        server.kill()
        for thread in self._threads:
            thread.join()


def events_of(name: str) -> list[Event]:
    """Return a batch for one user, idempotent by event ids."""
    return [
        Event(f"user-{name}", f"i{number}", "click", event_id=f"{name}-{number}") for number in range(BATCH)
    ]


def test_every_acknowledged_event_is_there_after_each_of_several_kills(processes: Processes) -> None:
    told: set[str] = set()
    sent: set[str] = set()
    for round_ in range(KILLS):
        server = processes.start()
        writers = Writers(server.address, lambda client, name: _record(client, name), f"r{round_}")
        writers.kill_after(server, 60)
        told |= set(writers.acknowledged)
        sent |= set(writers.sent)
        assert len(told) < len(sent)  # it was killed in the middle of something
    with Client(processes.start().address) as client:
        assert client.status().event_count >= len(told) * BATCH
        for name in sorted(told)[:40]:
            page = client.recommend(RecommendQuery(user_id=f"user-{name}", page_size=1))
            assert (page.degradation, page.items[0].item_id) == ("none", f"i{BATCH}"), name
        for name in sorted(told):
            assert client.record_events(events_of(name)).new_count == 0, name
        for name in sorted(sent - told):  # a call is stored as a whole or not at all
            assert client.record_events(events_of(name)).new_count in (0, BATCH), name
        assert client.status().event_count == len(sent) * BATCH


def _record(client: Client, name: str) -> None:
    client.record_events(events_of(name))


def test_every_acknowledged_item_is_there_after_a_kill(processes: Processes) -> None:
    told: set[str] = set()
    gone: set[str] = set()

    def change(client: Client, name: str) -> None:
        number = int(name.rpartition("-")[2])
        client.upsert_items([Item(name, {"title": f"Boot {name}", "price": float(number)})])
        if number % 3 == 0:
            gone.add(name)
            client.delete_items([name])

    for round_ in range(2):
        server = processes.start()
        writers = Writers(server.address, change, f"r{round_}")
        writers.kill_after(server, 40)
        told |= set(writers.acknowledged)
    with Client(processes.start().address) as client:
        for name in sorted(told):
            if name in gone:
                with pytest.raises(ServiceError, match="is not in the catalogue"):
                    client.similar_items(SimilarQuery(item_id=name))
            else:
                found = client.similar_items(SimilarQuery(text=f"Boot {name}", page_size=1)).items[0]
                assert (found.item_id, found.title) == (name, f"Boot {name}")


def test_a_user_whose_deletion_was_acknowledged_stays_gone_after_a_kill(processes: Processes) -> None:
    users = [f"user.{thread}-{number}@example.com" for thread in range(WRITERS) for number in range(200)]
    write_histories(processes.store, users, events=5)
    server = processes.start()
    writers = Writers(server.address, lambda client, name: _forget(client, name), "user")
    writers.kill_after(server, 12)
    deleted = [_address(name) for name in writers.acknowledged]
    unsure = [_address(name) for name in writers.sent if name not in writers.acknowledged]
    # Before anything runs again: the files of the killed server do not know them.
    assert [name for user in deleted for name in files_with(processes.store, user)] == []
    left = set(pl.read_parquet(processes.store / "histories.parquet")["user_id"].unique())
    assert set(users) - set(deleted) - set(unsure) <= left <= set(users) - set(deleted)

    with Client(processes.start().address) as client:
        for user in deleted:
            assert client.recommend(RecommendQuery(user_id=user)).degradation == "popularity"
        for user in unsure:  # asked again, it comes to an end
            client.delete_user(user)
            assert files_with(processes.store, user) == []
        assert client.status().user_count == len(users) - len(deleted) - len(unsure)


def _address(name: str) -> str:
    _, thread, number = name.split("-")
    return f"user.{thread}-{number}@example.com"


def _forget(client: Client, name: str) -> None:
    client.delete_user(_address(name))


def test_a_half_written_file_of_a_killed_deletion_goes_with_the_next_one(processes: Processes) -> None:
    """The temporary file of an interrupted rewrite contains users, too."""
    write_histories(processes.store, ["alice.w", "bob.b"])
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    remains = [processes.store / f".histories.parquet.{pid}.tmp" for pid in (gone.pid, 1 << 22)]
    for path in remains:
        path.write_bytes(b"half of it: alice.w")
    with file_replacement(processes.store / "histories.parquet") as alive:
        alive.write_bytes(b"somebody publishes this at the moment")
        with Client(processes.start().address) as client:
            client.delete_user("alice.w")
        assert files_with(processes.store, "alice.w") == []
        assert not any(path.exists() for path in remains)
        assert alive.exists()


PUBLISHER = """
import itertools, os, sys
from pathlib import Path
from ranking.bundle.store import publish_version
def write(folder):
    for number in range(4):
        (folder / f"part{number}").write_bytes(os.urandom(200_000))
for number in itertools.count():
    print(publish_version(Path(sys.argv[1]), write, {"number": number}), flush=True)
"""


def test_a_publisher_killed_at_any_moment_leaves_a_whole_version_current(tmp_path: Path) -> None:
    acknowledged = ""
    for round_ in range(8):
        publisher = subprocess.Popen(
            [sys.executable, "-c", PUBLISHER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert publisher.stdout is not None
        first = publisher.stdout.readline().strip()
        time.sleep(0.003 * round_)  # another place in the work each time
        publisher.send_signal(signal.SIGKILL)
        told = [first, *publisher.communicate()[0].split()]
        acknowledged = told[-1] if len(told[-1]) == len(first) else told[-2]
        current = current_version(tmp_path)
        verify(tmp_path / VERSIONS / current)
        assert current >= acknowledged
    for version in versions(tmp_path):
        verify(tmp_path / VERSIONS / version)
    last = publish_version(tmp_path, lambda folder: None, {})
    assert current_version(tmp_path) == last
    assert [path.name for path in (tmp_path / VERSIONS).iterdir() if path.name.startswith(".")] == []
    (tmp_path / VERSIONS / acknowledged / "part0").unlink()
    with pytest.raises(InputError, match="missing"):
        verify(tmp_path / VERSIONS / acknowledged)


def _starter_and_models(server: ServerProcess) -> tuple[int, list[int]]:
    (starter,) = children(server.process.pid)
    return starter, children(starter)


def test_a_killed_model_process_is_replaced_and_nothing_is_lost(
    processes: Processes, trained_store: Path
) -> None:
    server = processes.start(store=trained_store, real=True, reload_seconds=0.2)
    with Client(server.address, timeout=20.0) as client:
        version = client.status().model_version
        client.record_events([Event("somebody", "i1", "click")])
        client.upsert_items([Item("n1", {"title": "violet boots"})])
        starter, (model,) = _starter_and_models(server)
        codes: set[str] = set()
        os.kill(model, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while True:
            try:
                asked = RecommendQuery(user_id="somebody", page_size=5)
                answer = client.recommend(asked)
                break
            except ServiceError as error:
                codes.add(error.reason or error.code.name)
                assert time.monotonic() < deadline
        assert codes <= {"MODEL_RESTARTING"}
        assert (answer.model_version, answer.degradation) == (version, "none")
        assert client.similar_items(SimilarQuery(text="violet boots", page_size=1)).items[0].item_id == "n1"
        assert client.status().failed_reload is None
        same, (other,) = _starter_and_models(server)
        assert same == starter
        assert other != model
    assert f"the process of model {version} has ended" in server.err.read_text()
    assert server.stop() == 0


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_a_model_process_ends_with_its_server(processes: Processes, trained_store: Path, end: str) -> None:
    server = processes.start(store=trained_store, real=True)
    starter, (model,) = _starter_and_models(server)
    for process in (model, starter):  # as a supervisor may send it to all of them: the server drains first
        os.kill(process, signal.SIGTERM)
        os.kill(process, signal.SIGINT)
    with Client(server.address) as client:
        assert len(client.recommend(RecommendQuery(page_size=3)).items) == 3
    assert runs(model)
    assert runs(starter)
    getattr(server, end)()
    until(lambda: not runs(model) and not runs(starter))
