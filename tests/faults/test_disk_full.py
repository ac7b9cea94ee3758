"""Full disk: writes are refused as UNAVAILABLE, lists are still served; with free space all recovers."""

from __future__ import annotations

import errno
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from serving.observability.health import STATE_HEALTH
from shelfwise_client import Client, Event, Item, RecommendQuery, SearchQuery, ServiceError, SimilarQuery
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc
from tests.faults.conftest import Processes
from tests.faults.server_process import ROOT, ServerProcess, complaint
from tests.serving.api.test_delete_user import files_with, write_histories

ALICE = "alice.wonderland@example.com"


class Disk(Protocol):
    """The folder of the state, and control of its free space."""

    state: Path

    def fill(self, server: ServerProcess) -> None:
        """Fill the disk."""

    def free(self, server: ServerProcess) -> None:
        """Free space."""

    def empty(self) -> None:
        """Free space once the server has ended."""


class SmallDisk:
    """A file system of two megabytes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, check=False
        )
        self.mounted = done.returncode == 0
        self.state = folder / "state.sqlite"

    def fill(self, server: ServerProcess) -> None:
        with (self.folder / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(b"x" * 512):
                    pass
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise

    def free(self, server: ServerProcess) -> None:
        self.empty()

    def empty(self) -> None:
        (self.folder / "filler").unlink()

    def close(self) -> None:
        if self.mounted:
            subprocess.run(["umount", "--lazy", str(self.folder)], check=True)


class Quota:
    """Files of the server's process may not grow at all; works without any privilege."""

    def __init__(self, state: Path) -> None:
        self.state = state

    def fill(self, server: ServerProcess) -> None:
        hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (0, hard))

    def free(self, server: ServerProcess) -> None:
        hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)[1]
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))

    def empty(self) -> None:
        """Do nothing: the limit ended with the process."""


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    made = SmallDisk(tmp_path / "small")
    yield made
    made.close()


@pytest.fixture(params=["disk", "quota"])
def disk(request: pytest.FixtureRequest, processes: Processes, small_disk: SmallDisk) -> Disk:
    if request.param == "disk" and small_disk.mounted:
        return small_disk
    return Quota(processes.store / "state.sqlite")  # twice the same where mounting is not allowed


def refused(stub: Any, request: Any) -> None:
    """Make a call, without the typed client's retries."""
    with pytest.raises(grpc.RpcError) as caught:
        getattr(stub, type(request).__name__.removesuffix("Request"))(request, timeout=20)
    error = ServiceError.of(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STATE_UNAVAILABLE")
    assert error.retry_seconds == 1.0


@pytest.fixture
def channels() -> Iterator[Callable[[ServerProcess], Any]]:
    opened: list[grpc.Channel] = []

    def stub(server: ServerProcess) -> Any:
        opened.append(grpc.insecure_channel(server.address))
        return pb_grpc.RecommendationServiceStub(opened[-1])  # type: ignore[no-untyped-call]

    yield stub
    for channel in opened:
        channel.close()


def state_health(server: ServerProcess) -> int:
    with grpc.insecure_channel(server.address) as channel:
        request = health_pb2.HealthCheckRequest(service=STATE_HEALTH)
        return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status)


def batch(name: str, count: int = 200) -> list[Event]:
    """Return more events than fit into already allocated pages."""
    return [Event(ALICE, "i9", "click", event_id=f"{name}-{n}") for n in range(count)]


def recorded(events: list[Event]) -> pb.RecordEventsRequest:
    return pb.RecordEventsRequest(events=[event.message() for event in events])


def test_a_full_disk_stops_changes_and_nothing_else(
    processes: Processes, disk: Disk, channels: Callable[[ServerProcess], Any]
) -> None:
    write_histories(processes.store, ["bob"], events=5)
    server = processes.start(state=str(disk.state))
    with Client(server.address, timeout=10.0) as client:
        client.record_events([Event(ALICE, "i7", "click", event_id="before")])
        client.upsert_items([Item("n1", {"title": "Boot one"})])
        disk.fill(server)
        stub = channels(server)
        refused(stub, recorded(batch("full")))
        refused(stub, pb.UpsertItemsRequest(items=[Item("n2", {"title": "Boot two"}).message()]))
        refused(stub, pb.DeleteItemsRequest(item_ids=["n1"]))
        refused(stub, pb.DeleteUserRequest(user_id=ALICE))
        assert state_health(server) == health_pb2.HealthCheckResponse.NOT_SERVING

        page = client.recommend(RecommendQuery(user_id=ALICE, page_size=1))
        assert (page.degradation, page.items[0].item_id) == ("none", "i8")  # the history is still read
        assert client.similar_items(SimilarQuery(text="Boot one", page_size=1)).items[0].item_id == "n1"
        assert client.search_items(SearchQuery("Boot two", page_size=1)).items[0].title != "Boot two"
        assert client.status().event_count == 6

        disk.free(server)  # and nobody has to restart anything
        assert client.record_events(batch("full")).new_count == 200
        client.upsert_items([Item("n2", {"title": "Boot two"})])
        client.delete_items(["n1"])
        assert client.similar_items(SimilarQuery(text="Boot two", page_size=1)).items[0].item_id == "n2"
        assert client.delete_user(ALICE).deleted_event_count == 201
        assert files_with(processes.store, ALICE) == files_with(disk.state.parent, ALICE) == []
    assert server.stop() == 0
    assert "Traceback" not in server.err.read_text()


def test_what_was_refused_is_nowhere_after_a_restart(
    processes: Processes, disk: Disk, channels: Callable[[ServerProcess], Any]
) -> None:
    server = processes.start(state=str(disk.state))
    with Client(server.address) as client:
        client.record_events([Event(ALICE, "i7", "click", event_id="kept")])
    disk.fill(server)
    refused(channels(server), recorded(batch("lost")))
    server.kill()
    disk.empty()
    with Client(processes.start(state=str(disk.state)).address) as client:
        assert client.status().event_count == 1
        assert client.recommend(RecommendQuery(user_id=ALICE, page_size=1)).items[0].item_id == "i8"


def test_a_server_without_room_for_its_state_says_so_and_ends(processes: Processes) -> None:
    """Neither a new state nor the histories of a training fit; what is printed goes through pipes."""

    def limited(size: int) -> tuple[int, str]:
        command = ["prlimit", f"--fsize={size}", *processes.command()]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, complaint(done.stderr)

    code, errors = limited(0)
    assert code == 2
    assert "state.sqlite: cannot be used as user state" in errors
    processes.start().stop()
    write_histories(processes.store, ["bob"], events=5000)
    code, errors = limited(200_000)
    assert code == 2
    assert "writing user state failed" in errors
    with Client(processes.start().address) as client:  # with room, what was cut off is repeated
        assert client.status().event_count == 5000
