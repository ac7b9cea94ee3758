"""Reload of a model where there is memory for one only: refused, or after the end of the served one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from conf.errors import InputError
from conf.serving import ReloadWithoutRoom, ServeConfig
from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset
from features.data.pipeline_step import write_atomically
from ranking.bundle.host_memory import Room, bytes_needed
from ranking.bundle.store import VERSIONS, current_version, roll_back
from serving.model.interfaces import LiveModel
from serving.model.process.client import RemoteModel
from serving.model.process.loader import Loader
from serving.model.process.worker import LoadRequest
from serving.observability.health import RELOAD_HEALTH
from shelfwise_client import Client, Item, RecommendQuery
from shelfwise_client.v1 import recommendations_pb2 as pb
from tests.bundles import make_bundle, publish_bundle
from tests.serving.conftest import Harness, Servers, until

FAST = 0.02
STOP_FIRST = ReloadWithoutRoom.stop_first
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


@dataclass
class Machine:
    """Has memory for one model, and what its end frees is enough for another."""

    store: Path
    running: list[RemoteModel] = field(default_factory=list)
    loads: list[str] = field(default_factory=list)
    """Versions whose loading has begun."""
    gate: threading.Event = field(default_factory=threading.Event)
    """Lets later loads go on."""
    broken: str = ""
    """A version whose process ends while it is loaded."""

    def free(self) -> Room:
        needed = bytes_needed(self.store / VERSIONS / current_version(self.store), libraries=True)
        full = any(model.works for model in self.running)
        return Room(1 if full else needed, "of the container's limit of 1,024 MB")

    def start(self, request: LoadRequest) -> LiveModel:
        self.loads.append(request.version)
        if self.running:
            assert self.gate.wait(30)
        if request.version == self.broken:
            raise RuntimeError("the model's process has ended before its model was loaded")
        self.running.append(RemoteModel(request))
        return self.running[-1]


@pytest.fixture
def machine(servers: Servers, dataset: Dataset, encoder: TextEncoder, bert: Path) -> Machine:
    publish_bundle(servers.store, make_bundle(dataset, encoder), bert)
    return Machine(servers.store)


@pytest.fixture
def publish(servers: Servers, dataset: Dataset, encoder: TextEncoder, bert: Path) -> Callable[[], str]:
    return lambda: publish_bundle(servers.store, make_bundle(dataset, encoder), bert)


def begin(
    servers: Servers, machine: Machine, monkeypatch: pytest.MonkeyPatch, what: ReloadWithoutRoom
) -> Harness:
    # As if the process had much memory of its own.
    monkeypatch.setattr("serving.model.process.loader.private_bytes", lambda pid: 2**40)
    loader = Loader(ServeConfig(artifacts=str(machine.store)), machine.start, machine.free)
    first = loader.first(current_version(machine.store))
    return servers.start(
        live=first, load=loader, stop_first=loader.stop_first, reload_seconds=FAST, reload_without_room=what
    )


def health(server: Harness, name: str = "") -> int:
    with grpc.insecure_channel(server.address) as channel:
        request = health_pb2.HealthCheckRequest(service=name)
        return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status)


def refusal(server: Harness) -> tuple[grpc.StatusCode, str, bool]:
    """Return the code, the reason, and whether there is a time to retry, of a list that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        server.stub.Recommend(pb.RecommendRequest(page_size=3), timeout=10)
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    status = rpc_status.from_call(caught.value)
    assert status is not None
    found = [detail.Unpack(info) or detail.Unpack(retry) for detail in status.details]
    assert found
    return caught.value.code(), info.reason, retry.retry_delay.seconds > 0


def test_the_served_model_is_ended_first_and_callers_retry_meanwhile(
    servers: Servers,
    machine: Machine,
    publish: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = begin(servers, machine, monkeypatch, STOP_FIRST)
    first = current_version(machine.store)
    second = publish()
    until(lambda: health(server) == NOT_SERVING)
    until(lambda: machine.loads == [first, second])
    assert not machine.running[0].works  # one model at a time
    assert refusal(server) == (grpc.StatusCode.UNAVAILABLE, "MODEL_RESTARTING", True)
    with Client(server.address, timeout=20) as client:
        stored = threading.Thread(
            target=client.upsert_items, args=([Item("new", {"title": "violet boots", "brand": "Novum"})],)
        )
        stored.start()
        time.sleep(0.2)
        machine.gate.set()
        stored.join()
        until(lambda: health(server) == SERVING)
        assert client.status().failed_reload is None
        page = client.recommend(RecommendQuery(filter='brand = "Novum"'))
        assert page.model_version == second
        assert [item.item_id for item in page.items] == ["new"]  # the change was stored meanwhile
    assert f"model {first} is ended before model {second} is loaded" in caplog.text
    assert "lists were not made for " in caplog.text
    assert server.running.metrics.registry.get_sample_value("shelfwise_model_deaths_total") == 0


def test_a_version_that_the_store_lacks_is_named_with_the_newest(machine: Machine) -> None:
    loader = Loader(ServeConfig(artifacts=str(machine.store)), machine.start, machine.free)
    missing, newest = "20200101T000000Z-000000000000", current_version(machine.store)
    with pytest.raises(InputError) as caught:
        loader(missing, True)
    assert str(caught.value) == f"{machine.store}: no complete version {missing}; the newest is {newest}"


def test_a_version_without_room_is_refused_by_default(
    servers: Servers, machine: Machine, publish: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ServeConfig().reload_without_room is ReloadWithoutRoom.refuse
    server = begin(servers, machine, monkeypatch, ReloadWithoutRoom.refuse)
    first, second = current_version(machine.store), publish()
    with Client(server.address) as client:
        until(lambda: client.status().failed_reload is not None)
        failed = client.status().failed_reload
        assert failed is not None
        assert failed.reason.startswith(f"too little memory for model {second} beside the one that serves")
        assert "reload_without_room=stop_first" in failed.reason
        assert client.recommend(RecommendQuery()).model_version == first
    assert machine.loads == [first]
    assert health(server) == SERVING


def test_a_damaged_version_ends_nothing(
    servers: Servers, machine: Machine, publish: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = begin(servers, machine, monkeypatch, STOP_FIRST)
    first = current_version(machine.store)
    pointer = (machine.store / "CURRENT").read_text()
    monkeypatch.setattr(server.running.service.watcher, "_follow", False)
    second = publish()
    (machine.store / "CURRENT").write_text(pointer)
    (machine.store / VERSIONS / second / "item_vectors.npy").write_bytes(b"")
    monkeypatch.setattr(server.running.service.watcher, "_follow", True)
    write_atomically(machine.store / "CURRENT", second + "\n")  # never found empty
    with Client(server.address) as client:
        until(lambda: client.status().failed_reload is not None)
        failed = client.status().failed_reload
        assert failed is not None
        assert "item_vectors.npy" in failed.reason
        assert client.recommend(RecommendQuery()).model_version == first
    assert machine.running[0].works
    assert machine.loads == [first]


def test_a_version_that_will_not_fit_alone_either_ends_nothing(
    servers: Servers, machine: Machine, publish: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = begin(servers, machine, monkeypatch, STOP_FIRST)
    monkeypatch.setattr("serving.model.process.loader.private_bytes", lambda pid: 2**20)
    first, second = current_version(machine.store), publish()
    with Client(server.address) as client:
        until(lambda: client.status().failed_reload is not None)
        failed = client.status().failed_reload
        assert failed is not None
        assert failed.reason.startswith(f"too little memory for model {second}: it takes about ")
        assert "1 MB are free" in failed.reason  # what the end of the served one would free
        assert client.recommend(RecommendQuery()).model_version == first
    assert machine.running[0].works


def test_the_former_model_is_loaded_again_where_the_new_one_fails_and_once_only(
    servers: Servers, machine: Machine, publish: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.model.reload._RETRY_SECONDS", 0.05)
    machine.gate.set()
    server = begin(servers, machine, monkeypatch, STOP_FIRST)
    first = current_version(machine.store)
    monkeypatch.setattr(server.running.service.watcher, "_follow", False)
    second = machine.broken = publish()
    monkeypatch.setattr(server.running.service.watcher, "_follow", True)
    with Client(server.address, timeout=20) as client:
        until(lambda: client.status().failed_reload is not None)
        until(lambda: health(server) == SERVING)
        assert client.recommend(RecommendQuery()).model_version == first
        assert machine.loads == [first, second, first]
        time.sleep(0.5)  # ten times the delay of a retry: another attempt would end the model again
        assert machine.loads == [first, second, first]
        failed = client.status().failed_reload
        assert failed is not None
        assert failed.model_version == second
        assert "RuntimeError: the model's process has ended before its model was loaded" in failed.reason
        assert health(server, RELOAD_HEALTH) == NOT_SERVING
        machine.broken = ""
        server.loop.call_soon_threadsafe(server.running.reread)  # as SIGHUP does
        until(lambda: client.status().failed_reload is None)
        assert client.recommend(RecommendQuery()).model_version == second
        roll_back(machine.store)
        until(lambda: machine.loads[-1] == first and health(server) == SERVING)
        assert client.recommend(RecommendQuery()).model_version == first
