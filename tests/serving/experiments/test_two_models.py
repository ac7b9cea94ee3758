"""Two published versions in two processes: the lists of arms, item changes, erasure, and a killed process."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from grpc_health.v1 import health_pb2

from conf.encoders import TextEncoderConfig
from encoders.text.text_encoder import load_text_encoder
from features.data.dataset import Dataset
from ranking.bundle.store import versions
from serving.experiments.assignment import position
from serving.model.interfaces import LiveModel
from serving.model.process.client import RemoteModel
from shelfwise_client import Client, Event, Item, RecommendQuery, RecommendResult, SearchQuery
from tests.bundles import make_bundle, publish_bundle
from tests.serving.conftest import Harness, Servers, until
from tests.serving.model.test_reload import health
from tests.serving.model_stores import start_message

USERS = [f"u{n}" for n in range(12)]


def arm_of(user: str) -> str:
    return "control" if position("ranking", user) < 0.5 else "old"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, dataset: Dataset, bert: Path) -> Path:
    """A store with two versions whose lists differ: random towers, and none."""
    folder = tmp_path_factory.mktemp("store")
    encoder = load_text_encoder(TextEncoderConfig(model=str(bert), max_tokens=24)).eval()
    publish_bundle(folder, make_bundle(dataset, encoder, trained=False), bert)
    publish_bundle(folder, make_bundle(dataset, encoder), bert)
    assert len(versions(folder)) == 2
    return folder


class Shop:
    """Servers on copies of a store."""

    def __init__(self, servers: Servers, store: Path) -> None:
        self.servers = servers
        self.store = servers.store / "store"
        shutil.copytree(store, self.store)
        self.old, self.new = versions(self.store)
        self.processes: dict[str, RemoteModel] = {}

    def start(self, version: str, **settings: Any) -> Harness:
        def load(version: str, background: bool) -> LiveModel:
            message = replace(start_message(self.store), version=version, background=background)
            self.processes[version] = RemoteModel(message)
            return self.processes[version]

        return self.servers.start(
            live=load(version, False),
            load=load,
            artifacts=str(self.store),
            item_poll_seconds=0.02,
            event_poll_seconds=0.02,
            reload_seconds=0,
            **settings,
        )

    def experiment(self, **settings: Any) -> Harness:
        file = self.servers.store / "experiments.yaml"
        file.write_text(
            f"ranking: {{arms: {{control: {{share: 0.5}}, old: {{share: 0.5, version: {self.old}}}}}}}"
        )
        return self.start(self.new, experiments=str(file), **settings)


@pytest.fixture
def shop(servers: Servers, store: Path) -> Iterator[Shop]:
    made = Shop(servers, store)
    yield made
    servers.close()
    for process in made.processes.values():
        process.close()


def events() -> list[Event]:
    return [Event(user, f"i{n % 7}", "click", event_id=f"{user}-{n}") for user in USERS for n in range(3)]


AS_OF = datetime.now(UTC) + timedelta(hours=1)
"""One time for all lists that are compared: recency counts from it."""


Made = tuple[str, list[tuple[str, float]]]
"""Version that made a list, and its items with their scores."""


def lists(client: Client, users: list[str], query: str = "") -> dict[str, Made]:
    """Return a list for each user."""
    found = {}
    for user in users:
        page: RecommendResult = (
            client.search_items(SearchQuery(query, user_id=user, page_size=8))
            if query
            else client.recommend(RecommendQuery(user_id=user, page_size=8, request_time=AS_OF))
        )
        found[user] = page.model_version, [(item.item_id, item.score) for item in page.items]
    return found


def counted(server: Harness, number: int) -> Callable[[], bool]:
    return lambda: all(host._counted() == number for host in server.running._router.hosts)


def test_an_arms_lists_are_those_of_a_server_with_its_version_alone(shop: Shop, servers: Servers) -> None:
    server = shop.experiment(state=str(servers.store / "both.sqlite"))
    with Client(server.address, timeout=10) as client:
        client.record_events(events())
        until(counted(server, len(events())))
        both, searched = lists(client, USERS), lists(client, USERS, "guitar")
    assert {version for version, _ in both.values()} == {shop.old, shop.new}
    for version, arm in ((shop.old, "old"), (shop.new, "control")):
        users = [user for user in USERS if arm_of(user) == arm]
        alone = shop.start(version, state=str(servers.store / f"{version}.sqlite"))
        with Client(alone.address, timeout=10) as client:
            client.record_events(events())
            until(counted(alone, len(events())))
            assert lists(client, users) == {user: both[user] for user in users}
            assert lists(client, users, "guitar") == {user: searched[user] for user in users}
            others = [user for user in USERS if user not in users]
            found = lists(client, others)
            assert any(found[user][1] != both[user][1] for user in others)  # the models do differ


def test_changes_of_items_reach_both_models_before_they_are_acknowledged(shop: Shop) -> None:
    server = shop.experiment()
    item = Item("new", {"title": "zither zither", "brand": "Acme", "price": 5.0})
    with Client(server.address, timeout=10) as client:

        def seen(user: str) -> bool:
            found = client.search_items(SearchQuery("zither", user_id=user, page_size=5))
            return "new" in [item.item_id for item in found.items]

        client.upsert_items([item])
        assert [seen(user) for user in USERS] == [True] * len(USERS)
        client.delete_items(["new"])
        assert [seen(user) for user in USERS] == [False] * len(USERS)


def test_an_erased_user_is_unknown_to_both_models(shop: Shop) -> None:
    server = shop.experiment()
    with Client(server.address, timeout=10) as client:
        client.record_events(events())
        for arm in ("control", "old"):
            user = next(user for user in USERS if arm_of(user) == arm)
            nobody = next(f"n{n}" for n in range(99) if arm_of(f"n{n}") == arm)
            before, unknown = (client.recommend(RecommendQuery(user_id=name)) for name in (user, nobody))
            assert [arm] == [e.arm for e in before.experiments] == [e.arm for e in unknown.experiments]
            assert (before.degradation, before.items) != (unknown.degradation, unknown.items)
            client.delete_user(user)
            after = client.recommend(RecommendQuery(user_id=user))
            assert (after.degradation, after.items) == (unknown.degradation, unknown.items)


def test_a_killed_process_of_an_arm_costs_no_call_and_is_replaced(shop: Shop) -> None:
    server = shop.experiment()
    user = next(user for user in USERS if arm_of(user) == "old")
    failures: list[Exception] = []
    made: list[tuple[str, bool]] = []
    stop = threading.Event()

    def ask() -> None:
        with Client(server.address, timeout=20) as client:
            while not stop.is_set():
                try:
                    page = client.recommend(RecommendQuery(user_id=user))
                    made.append((page.model_version, page.experiments[0].fallback))
                except Exception as error:
                    failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(made) > 20)
        first = shop.processes[shop.old]
        os.kill(first.process.pid, signal.SIGKILL)
        until(lambda: (shop.new, True) in made)
        until(lambda: shop.processes[shop.old] is not first)
        until(lambda: made[-1] == (shop.old, False))
        assert health(server, "") == health_pb2.HealthCheckResponse.SERVING
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert set(made) == {(shop.old, False), (shop.new, True)}
