"""Several workers on one port: they share the state, and a dead one is replaced."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path

import grpc
import pytest
from rich.console import Console

from conf.serving import ServeConfig
from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset
from serving.workers import Workers, _Leaving
from shelfwise_client import Client, RecommendQuery, ServiceError
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc
from tests.bundles import make_bundle, publish_bundle
from tests.processes import children, runs
from tests.serving.observability.test_metrics import Scrape, free_port

ROOT = Path(__file__).parents[2]


def within(seconds: float, condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


class Parent:
    """`shelfwise serve workers=2` as a user runs it."""

    def __init__(self, store: Path) -> None:
        self.metrics = free_port()
        command = [
            sys.executable, "-m", "shelfwise", "serve", f"artifacts={store}", "port=0", "workers=2",
            "admin=true", f"metrics.port={self.metrics}", "drain_seconds=5", "item_poll_seconds=60",
            "limits.history_seconds=5",  # a change takes longer than .2 s where the machine is busy
        ]  # fmt: skip
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.errors: list[str] = []
        assert self.process.stderr is not None
        self.reader = threading.Thread(target=lambda: self.errors.extend(self.process.stderr or ()))
        self.reader.start()
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()

    @property
    def address(self) -> str:
        return self.line.split()[2]

    def close(self) -> None:
        self.reader.join(20)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def children(self) -> list[int]:
        return children(self.process.pid)

    def ready(self) -> bool:
        """Wait until both workers serve metrics and have loaded a model."""
        try:
            return all(Scrape(self.metrics + n)("model_loaded_timestamp_seconds") > 0 for n in (0, 1))
        except (OSError, HTTPException):  # one who calls a free port may reach himself
            return False


class Route:
    """Connect to one of the workers, chosen by the kernel."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        self.stub = pb_grpc.RecommendationServiceStub(self.channel)  # type: ignore[no-untyped-call]


def routes_to_both(parent: Parent) -> list[Route]:
    """Connect until there is a connection to each worker."""
    found: dict[int, Route] = {}

    def connect() -> bool:
        route = Route(parent.address)
        before = [statuses(parent.metrics + n) for n in (0, 1)]
        route.stub.GetStatus(pb.GetStatusRequest(), timeout=10)
        after = [statuses(parent.metrics + n) for n in (0, 1)]
        number = next(n for n in (0, 1) if after[n] > before[n])
        if number in found:
            route.channel.close()
        found.setdefault(number, route)
        return len(found) == 2

    within(30, connect)
    return [found[0], found[1]]


def statuses(port: int) -> float:
    labels = frozenset({("method", "GetStatus"), ("code", "OK")})
    return Scrape(port).samples.get(("shelfwise_call_seconds_count", labels), 0.0)


@pytest.fixture
def parent(tmp_path: Path, dataset: Dataset, encoder: TextEncoder, bert: Path) -> Iterator[Parent]:
    publish_bundle(tmp_path, make_bundle(dataset, encoder), bert)
    started = Parent(tmp_path)
    yield started
    if started.process.poll() is None:
        started.process.terminate()
        started.process.wait(20)
    started.close()


def test_two_workers_share_everything_and_survive_each_other(parent: Parent, dataset: Dataset) -> None:
    assert parent.line.startswith("listening on 127.0.0.1:"), parent.errors
    with Client(parent.address, timeout=10) as client:  # the first worker is warm when the line is printed
        assert client.status().item_count == len(dataset.catalogue)
    within(60, parent.ready)
    one, other = routes_to_both(parent)
    gone = dataset.catalogue.ids[0]

    # An event recorded through one is seen through the other, by the next call.
    event = {"user_id": "u-new", "item_id": dataset.catalogue.ids[3], "event": "purchase"}
    assert one.stub.RecordEvents(pb.RecordEventsRequest(events=[event]), timeout=10).new_count == 1
    list_of = other.stub.Recommend(pb.RecommendRequest(user_id="u-new"), timeout=10)
    assert list_of.degradation == pb.DEGRADATION_NONE

    # So is an item (nobody polls here: item_poll_seconds is a minute), and a deletion.
    new = pb.Item(item_id="new")
    new.attributes.update({"title": "velvet curtain"})
    assert one.stub.UpsertItems(pb.UpsertItemsRequest(items=[new]), timeout=10).upserted_count == 1
    found = other.stub.SearchItems(pb.SearchItemsRequest(query="velvet curtain", page_size=60), timeout=10)
    assert "new" in [item.item_id for item in found.items]
    everything = pb.RecommendRequest(page_size=100)
    assert gone in [item.item_id for item in one.stub.Recommend(everything, timeout=10).items]
    other.stub.DeleteItems(pb.DeleteItemsRequest(item_ids=[gone]), timeout=10)
    assert gone not in [item.item_id for item in one.stub.Recommend(everything, timeout=10).items]

    # A killed worker is replaced; a client that retries UNAVAILABLE goes on.
    victim = parent.children()[1]
    os.kill(victim, signal.SIGKILL)
    with Client(parent.address, timeout=10) as client:
        for _ in range(20):
            assert client.status().item_count == len(dataset.catalogue)
    within(30, lambda: victim not in parent.children() and len(parent.children()) == 2)
    within(60, parent.ready)
    for route in routes_to_both(parent):  # the new one knows everything, too
        ids = [item.item_id for item in route.stub.Recommend(everything, timeout=10).items]
        assert "new" in ids
        assert gone not in ids
        route.channel.close()
    assert any("another starts in 0.2 s" in line for line in parent.errors)

    processes = parent.children()
    parent.process.send_signal(signal.SIGTERM)
    assert parent.process.wait(20) == 0
    assert not any(map(runs, processes))


def test_what_the_first_worker_finds_wrong_ends_the_whole(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shelfwise", "serve", f"artifacts={tmp_path}", "port=0", "workers=2"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "no CURRENT here, so no model to serve" in done.stderr
    assert "Traceback" not in done.stderr


def test_workers_are_replaced_one_by_one_without_a_failed_call(parent: Parent) -> None:
    within(60, parent.ready)
    before = parent.children()
    assert len(before) == 2
    done = threading.Event()
    failures: list[ServiceError] = []
    most = [2]
    answered = [0, 0]

    def ask(number: int, keep: bool) -> None:
        """Call all the time, by one connection or by a new one for each call."""
        kept = Client(parent.address, timeout=30) if keep else None
        while not done.is_set():
            try:
                if kept is not None:
                    kept.recommend(RecommendQuery(page_size=3))
                else:
                    with Client(parent.address, timeout=30) as client:
                        client.recommend(RecommendQuery(page_size=3))
                answered[number] += 1
            except ServiceError as error:
                failures.append(error)
            most[0] = max(most[0], len(parent.children()))
        if kept is not None:
            kept.close()

    threads = [threading.Thread(target=ask, args=(number, keep)) for number, keep in enumerate((True, False))]
    for thread in threads:
        thread.start()
    parent.process.send_signal(signal.SIGHUP)
    within(120, lambda: len(set(parent.children()) - set(before)) == 2 and len(parent.children()) == 2)
    done.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert min(answered) > 10
    assert most[0] in (3, 4)  # one more than there are, while another may still drain
    parent.process.terminate()
    assert parent.process.wait(30) == 0
    parent.reader.join(20)
    assert [line for line in parent.errors if "has been replaced" in line][-1].endswith("0 to go\n")


def test_a_successor_that_cannot_start_leaves_the_workers(parent: Parent, tmp_path: Path) -> None:
    within(60, parent.ready)
    before = parent.children()
    current = tmp_path / "CURRENT"
    version = current.read_text()
    current.write_text("nothing")
    parent.process.send_signal(signal.SIGHUP)
    within(60, lambda: any("worker 0 is not replaced" in line for line in parent.errors))
    assert parent.children() == before
    current.write_text(version)
    with Client(parent.address, timeout=20) as client:
        assert len(client.recommend(RecommendQuery(page_size=3)).items) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_a_hangup_during_a_start_ends_nothing(
    tmp_path: Path, dataset: Dataset, encoder: TextEncoder, bert: Path, workers: int
) -> None:
    publish_bundle(tmp_path, make_bundle(dataset, encoder), bert)
    command = [
        sys.executable, "-m", "shelfwise", "serve", f"artifacts={tmp_path}", "port=0", f"workers={workers}",
    ]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    pid = process.pid
    within(30, lambda: bool(children(pid)))
    process.send_signal(signal.SIGHUP)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("listening on ")
    process.terminate()
    assert process.wait(60) == 0
    process.stdout.close()


@pytest.mark.parametrize(
    ("code", "says"), [("os.kill(os.getpid(), 9)", "signal 9: no memory"), ("os._exit(3)", "exit code 3")]
)
def test_a_worker_ended_for_want_of_memory_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: str, says: str
) -> None:
    monkeypatch.setattr("serving.workers.killed_since", lambda before: "no memory")
    parent = Workers(ServeConfig(), [sys.executable, "-c", f"import os; {code}"], Console(quiet=True))
    monkeypatch.setattr(parent, "_read", lambda worker, process: process.stdout.close())
    [worker] = parent._workers
    parent._start(worker)
    assert worker.process is not None
    worker.process.wait(20)
    stdout = worker.process.stdout
    assert stdout is not None
    within(10, lambda: stdout.closed)
    parent._restart_if_ended(worker)
    assert f"worker 0 ended ({says}), another starts in 0.2 s" in caplog.text


DRAINING = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: signal.signal(signal.SIGTERM, signal.SIG_DFL))
print("ready", flush=True)
time.sleep(0.5)
"""


def test_a_stop_lets_a_replaced_worker_finish_its_calls() -> None:
    """A second signal would end it at once."""
    parent = Workers(ServeConfig(), [sys.executable, "-c", ""], Console(quiet=True))
    with subprocess.Popen([sys.executable, "-c", DRAINING], stdout=subprocess.PIPE, text=True) as replaced:
        assert replaced.stdout is not None
        assert replaced.stdout.readline() == "ready\n"
        replaced.terminate()
        parent._leaving.append(_Leaving(replaced, time.monotonic() + 10))
        time.sleep(0.1)
        assert parent._drain() == 0
        assert replaced.wait(10) == 0
