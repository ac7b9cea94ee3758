"""Reload of a model while serving, and the former model after a failure."""

from __future__ import annotations

import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import polars as pl
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from conf.errors import InputError
from encoders.text.text_encoder import TextEncoder
from features.data.dataset import Dataset
from ranking.bundle.bundle import load_bundle
from ranking.bundle.store import VERSIONS, roll_back
from ranking.live.updates import LiveItems
from serving.core.turns import LOCK, lock_file
from serving.model.interfaces import LiveModel
from serving.observability.health import RELOAD_HEALTH
from shelfwise_client import Client, Event, Item, RecommendQuery, ServiceError
from tests.bundles import make_bundle, publish_bundle
from tests.serving.conftest import Harness, Servers, until
from tests.serving.core.test_turns import worker
from tests.serving.fake_bundle import SLOW, FakeBundle

V1, V2, V3 = (f"20240101T00000{n}Z-{n:012x}" for n in (1, 2, 3))
FAST = 0.02


def point(store: Path, version: str) -> None:
    """Publish a version of the fake bundle, as far as the watcher can see."""
    (store / VERSIONS / version).mkdir(parents=True, exist_ok=True)
    (store / "CURRENT").write_text(version + "\n")


def fake(version: str, background: bool) -> LiveModel:
    assert background
    return FakeBundle(version)


def serving(client: Client, version: str) -> Callable[[], bool]:
    return lambda: client.status().model_version == version


def health(server: Harness, name: str) -> int:
    with grpc.insecure_channel(server.address) as channel:
        request = health_pb2.HealthCheckRequest(service=name)
        return int(health_pb2_grpc.HealthStub(channel).Check(request, timeout=10).status)


@pytest.fixture
def server(servers: Servers) -> Harness:
    point(servers.store, V1)
    return servers.start(FakeBundle(V1), load=fake, reload_seconds=FAST)


def test_a_published_version_is_served_without_a_restart_and_rolled_back(server: Harness) -> None:
    with Client(server.address) as client:
        client.record_events([Event("u", "i7", "click")])
        point(server.store, V2)
        until(serving(client, V2))
        page = client.recommend(RecommendQuery(user_id="u", page_size=2))
        assert (page.model_version, page.items[0].item_id) == (
            V2,
            "i8",
        )  # events belong to users, not to models
        point(server.store, V1)
        until(serving(client, V1))
        assert client.status().failed_reload is None


def test_the_version_that_is_being_loaded_is_named(servers: Servers) -> None:
    gate = threading.Event()

    def load(version: str, background: bool) -> LiveModel:
        gate.wait(10)
        if version == V3:
            raise InputError("damaged")
        return FakeBundle(version)

    point(servers.store, V1)
    server = servers.start(FakeBundle(V1), load=load, reload_seconds=FAST)
    with Client(server.address) as client:
        assert client.status().loading_version == ""
        point(servers.store, V2)
        until(lambda: client.status().loading_version == V2)
        assert client.status().model_version == V1
        gate.set()
        until(serving(client, V2))
        until(lambda: client.status().loading_version == "")
        point(servers.store, V3)
        until(lambda: client.status().failed_reload is not None)
        assert client.status().loading_version == ""


def test_a_request_is_answered_by_the_model_that_it_began_with(server: Harness) -> None:
    with Client(server.address) as client:
        slow = threading.Thread(target=lambda: pages.append(client.recommend(RecommendQuery(intent=SLOW))))
        pages: list[object] = []
        slow.start()
        until(lambda: server.running._host.jobs.busy)
        point(server.store, V2)
        until(serving(client, V2))
        slow.join()
        assert getattr(pages[0], "model_version", None) == V1


def test_a_version_that_fails_leaves_the_old_one_and_is_reported(servers: Servers) -> None:
    store = servers.store
    tried: list[str] = []

    def load(version: str, background: bool) -> LiveModel:
        tried.append(version)
        if version == V2:
            raise InputError(
                f"{store}/versions/{V2}/index.faiss: content does not match its sha256; roll back"
            )
        return FakeBundle(version)

    point(store, V1)
    server = servers.start(FakeBundle(V1), load=load, reload_seconds=FAST)
    with Client(server.address) as client:
        assert health(server, RELOAD_HEALTH) == health_pb2.HealthCheckResponse.SERVING
        point(store, V2)
        until(lambda: client.status().failed_reload is not None)
        failed = client.status().failed_reload
        assert failed is not None
        assert failed.model_version == V2
        assert failed.reason == f"versions/{V2}/index.faiss: content does not match its sha256; roll back"
        assert health(server, RELOAD_HEALTH) == health_pb2.HealthCheckResponse.NOT_SERVING
        assert health(server, "") == health_pb2.HealthCheckResponse.SERVING
        assert client.recommend(RecommendQuery()).model_version == V1
        time.sleep(5 * FAST)
        assert tried == [V2]  # not again and again
        server.loop.call_soon_threadsafe(server.running.reread)  # as SIGHUP does
        until(lambda: tried == [V2, V2])
        time.sleep(5 * FAST)
        assert tried == [V2, V2]
        point(store, V3)
        until(serving(client, V3))
        assert client.status().failed_reload is None
        until(lambda: health(server, RELOAD_HEALTH) == health_pb2.HealthCheckResponse.SERVING)


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("seconds", [FAST, 0.0])
def test_a_model_whose_process_has_ended_is_loaded_anew(
    servers: Servers,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: bool,
    seconds: float,
) -> None:
    """Loads the version named by CURRENT, or the same again if that fails or CURRENT is not followed."""
    monkeypatch.setattr("serving.running._PROCESS_POLL_SECONDS", FAST)
    gate, tried = threading.Event(), []

    def load(version: str, background: bool) -> LiveModel:
        assert not background
        tried.append(version)
        gate.wait(10)
        if version == V2:
            raise InputError("index.faiss: empty")
        return FakeBundle(version)

    point(servers.store, V1)
    first = FakeBundle(V1)
    server = servers.start(first, load=load, reload_seconds=seconds)
    if broken:
        point(servers.store, V2)
    first.works = False
    not_serving, serving = (
        health_pb2.HealthCheckResponse.NOT_SERVING,
        health_pb2.HealthCheckResponse.SERVING,
    )
    until(lambda: health(server, "") == not_serving)
    gate.set()
    until(lambda: health(server, "") == serving)
    with Client(server.address) as client:
        assert client.recommend(RecommendQuery()).model_version == V1
    assert tried[:2] == ([V2, V1] if broken and seconds else [V1])
    assert caplog.text.count(f"the process of model {V1} has ended") == 1
    registry = server.running.metrics.registry
    assert registry.get_sample_value("shelfwise_model_deaths_total") == 1


def test_a_model_that_ends_while_another_worker_loads_is_replaced_at_once(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker waits for the others with the next version only while its own model works."""
    lock = lock_file()
    monkeypatch.setenv(LOCK, str(lock))
    loads: list[str] = []

    def load(version: str, background: bool) -> LiveModel:
        loads.append(version)
        return FakeBundle(version)

    point(servers.store, V1)
    first = FakeBundle(V1)
    server = servers.start(first, load=load, reload_seconds=FAST)
    with worker(lock) as other, Client(server.address) as client:
        assert other.stdout is not None
        assert other.stdout.readline() == "taken\n"
        point(servers.store, V2)
        time.sleep(5 * FAST)
        assert loads == []
        first.works = False
        until(serving(client, V2))
        assert server.running.metrics.registry.get_sample_value("shelfwise_model_deaths_total") == 1
        point(servers.store, V3)
        time.sleep(5 * FAST)
        assert loads == [V2]
        other.kill()
        until(serving(client, V3))
    os.close(lock)


class Unwell(FakeBundle):
    """Loads, and cannot answer."""

    def encode_queries(self, texts: list[str]) -> object:  # type: ignore[override]
        raise RuntimeError("out of memory")


class Hashed(FakeBundle):
    """Made from pseudonymised users."""

    def __init__(self, version: str) -> None:
        super().__init__(version)
        self.manifest = {"hash_users": True}


@pytest.mark.parametrize(
    ("second", "says"),
    [(Unwell, "RuntimeError: out of memory"), (Hashed, "was made with privacy.hash_users=true")],
)
def test_a_model_that_cannot_answer_or_does_not_fit_is_not_served(
    servers: Servers, second: Callable[[str], LiveModel], says: str
) -> None:
    point(servers.store, V1)
    server = servers.start(FakeBundle(V1), load=lambda version, _: second(version), reload_seconds=FAST)
    with Client(server.address) as client:
        point(servers.store, V2)
        until(lambda: client.status().failed_reload is not None)
        failed = client.status().failed_reload
        assert failed is not None
        assert says in failed.reason
        assert client.recommend(RecommendQuery(intent="boots")).model_version == V1


def test_a_pointer_to_nothing_is_reported_and_heals(server: Harness) -> None:
    with Client(server.address) as client:
        (server.store / "CURRENT").write_text("nonsense")
        until(lambda: client.status().failed_reload is not None)
        failed = client.status().failed_reload
        assert failed is not None
        assert "not a published version" in failed.reason
        point(server.store, V1)
        until(lambda: client.status().failed_reload is None)


def test_histories_of_the_new_training_are_read_before_it_is_served(server: Harness) -> None:
    frame = pl.DataFrame(
        {"user_id": ["u"], "item_id": ["i7"], "event": ["click"], "timestamp": [5], "order": [0]}
    )
    frame.write_parquet(server.store / "histories.parquet")
    with Client(server.address) as client:
        assert client.recommend(RecommendQuery(user_id="u")).degradation == "popularity"
        point(server.store, V2)
        until(serving(client, V2))
        assert client.recommend(RecommendQuery(user_id="u")).degradation == "none"


def test_nothing_is_watched_when_it_is_switched_off(servers: Servers) -> None:
    point(servers.store, V1)
    server = servers.start(FakeBundle(V1), load=fake, reload_seconds=0)
    point(servers.store, V2)
    time.sleep(0.1)
    with Client(server.address) as client:
        assert client.status().model_version == V1


def test_before_the_model_is_warm_requests_are_told_to_wait(servers: Servers) -> None:
    model = FakeBundle()
    model.recommender.gate.clear()
    seen: list[tuple[int, str]] = []

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    address = f"127.0.0.1:{port}"

    def look() -> None:
        with grpc.insecure_channel(address) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            status = stub.Check(health_pb2.HealthCheckRequest(), timeout=10, wait_for_ready=True).status
        with Client(address, timeout=0.3) as client:
            try:
                client.recommend(RecommendQuery())
            except ServiceError as error:
                seen.append((int(status), error.reason or error.code.name))
        model.recommender.gate.set()

    looking = threading.Thread(target=look)
    looking.start()
    server = servers.start(model, port=port)
    looking.join()
    assert seen[0][0] == health_pb2.HealthCheckResponse.NOT_SERVING
    assert seen[0][1] in (
        "STARTING",
        "DEADLINE_EXCEEDED",
    )  # the client retries UNAVAILABLE until its deadline
    assert health(server, "") == health_pb2.HealthCheckResponse.SERVING


def real_server(servers: Servers, first: str) -> Harness:
    def load(version: str, background: bool) -> LiveModel:
        return LiveItems(load_bundle(servers.store, version), 100)

    return servers.start(live=load(first, False), load=load, reload_seconds=FAST, item_poll_seconds=FAST)


def test_items_outlive_a_change_of_model_under_load(
    servers: Servers, dataset: Dataset, encoder: TextEncoder, bert: Path
) -> None:
    """Real bundles: the new model reflects item changes in every response, and no request fails."""
    first = publish_bundle(servers.store, make_bundle(dataset, encoder), bert)
    server = real_server(servers, first)
    faults: list[str] = []
    stop = threading.Event()

    def read() -> None:
        with Client(server.address) as client:
            while not stop.is_set():
                try:
                    items = {i.item_id for i in client.recommend(RecommendQuery(page_size=100)).items}
                except ServiceError as error:
                    faults.append(str(error))
                    return
                if "i5" in items or "n1" not in items:
                    faults.append(f"i5 or n1: {sorted(items)}")

    with Client(server.address) as client:
        client.upsert_items([Item("n1", {"title": "violet boots", "brand": "Novum", "price": 1.0})])
        client.delete_items(["i5"])
        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        second = publish_bundle(servers.store, make_bundle(dataset, encoder), bert)
        for number in range(20):  # changes go on while the second one is loaded
            client.upsert_items([Item(f"m{number}", {"title": f"boots no{number}", "brand": "Novum"})])
        until(serving(client, second))
        roll_back(servers.store)
        until(serving(client, first))
        names = {
            i.item_id for i in client.recommend(RecommendQuery(filter='brand = "Novum"', page_size=50)).items
        }
        assert names == {"n1", *(f"m{n}" for n in range(20))}
        stop.set()
        for reader in readers:
            reader.join()
    assert faults == []


@pytest.mark.parametrize("damage", ["truncated", "changed", "missing"])
def test_every_kind_of_damaged_file_leaves_the_old_model_serving(
    servers: Servers, dataset: Dataset, encoder: TextEncoder, bert: Path, damage: str
) -> None:
    first = publish_bundle(servers.store, make_bundle(dataset, encoder), bert)
    server = real_server(servers, first)
    kept = publish_bundle(servers.store / "aside", make_bundle(dataset, encoder), bert)
    whole = servers.store / "aside" / VERSIONS / kept
    names = sorted(p.relative_to(whole).as_posix() for p in whole.rglob("*") if p.is_file())
    assert {"manifest.json", "catalog.parquet", "item_vectors.npy", "index.faiss"} <= set(names)
    with Client(server.address) as client:
        for number, name in enumerate(names):
            version = f"20990101T0000{number:02d}Z-{kept.split('-')[1]}"
            folder = servers.store / VERSIONS / version
            shutil.copytree(whole, folder)
            data = (folder / name).read_bytes()
            if damage == "truncated":
                (folder / name).write_bytes(data[: len(data) // 2])
            elif damage == "changed":
                (folder / name).write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
            else:
                (folder / name).unlink()
            (servers.store / "CURRENT").write_text(version + "\n")

            def failed(version: str = version) -> bool:
                now = client.status().failed_reload
                return now is not None and now.model_version == version

            until(failed)
            found = client.status().failed_reload
            assert found is not None, (name, found)
            assert name in found.reason, (name, found)
        assert client.recommend(RecommendQuery()).model_version == first
