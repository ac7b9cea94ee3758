"""A whole disaster: a backup under load, a lost machine, a restore to another place, and a start there."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conf.serving import RedisConfig
from serving.stores import open_stores
from shelfwise_client import Client, Event, RecommendQuery, ServiceError
from tests.faults.conftest import Processes
from tests.faults.server_process import ROOT
from tests.serving.conftest import until
from tests.serving.redis_server import RedisServer

BATCH = 50


class Shoppers:
    """A client that records batches of events as fast as they are acknowledged."""

    def __init__(self, address: str) -> None:
        self.acknowledged: list[tuple[str, str]] = []
        """User and event id."""
        self._thread = threading.Thread(target=self._run, args=(address,))
        self._thread.start()

    def _run(self, address: str) -> None:
        with Client(address, timeout=10.0) as client:
            for number in itertools.count():
                events = [
                    Event(f"u{number % 40}", f"i{place % 30}", "click", event_id=f"{number}-{place}")
                    for place in range(BATCH)
                ]
                try:
                    client.record_events(events)
                except ServiceError:
                    return
                self.acknowledged += [(event.user_id, event.event_id) for event in events]

    def join(self) -> None:
        self._thread.join(30)


def command(*words: str) -> str:
    """Run a command of shelfwise as an operator does, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "shelfwise.py", *words], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def stored(state: str, store: Path) -> set[tuple[str, str]]:
    """Return user and id of every stored event."""

    async def read() -> set[tuple[str, str]]:
        stores = await open_stores(state, store, RedisConfig(), create=False)
        try:
            pages = stores.users.stored(False)
            return {(e.user_id, e.event_id.removeprefix("client:")) async for page in pages for e in page}
        finally:
            await stores.close()

    return asyncio.run(read())


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_everything_acknowledged_before_a_backup_is_there_after_a_restore(
    kind: str, processes: Processes, tmp_path: Path, own_redis: Callable[..., RedisServer]
) -> None:
    def settings(name: str) -> tuple[Path, dict[str, Any], str]:
        store = tmp_path / name
        store.mkdir()
        state = str(store / "state.sqlite") if kind == "sqlite" else own_redis().url
        return store, {"state": state}, state

    store, told, state = settings("first")
    server = processes.start(store=store, **told)
    quiet = [Event("quiet", f"i{number}", "click", event_id=f"q{number}") for number in range(5)]
    with Client(server.address, timeout=20.0) as client:
        client.record_events(quiet)
        list_before = [item.item_id for item in client.recommend(RecommendQuery(user_id="quiet")).items]
    shoppers = Shoppers(server.address)
    until(lambda: len(shoppers.acknowledged) >= 20 * BATCH, 60)
    before, began = list(shoppers.acknowledged), time.monotonic()
    command("backup", f"artifacts={store}", f"state={state}", f"output={tmp_path / 'backups'}")
    seconds = time.monotonic() - began
    during = len(shoppers.acknowledged) - len(before)
    assert during > 0, "the server recorded nothing while it was backed up"
    server.kill()
    shoppers.join()
    print(f"{kind}: {during / seconds:,.0f} events/s during a backup of {seconds:.1f} s")  # noqa: T201
    quiet_ids = {("quiet", event.event_id) for event in quiet}
    assert {*shoppers.acknowledged, *quiet_ids} <= stored(state, store)  # the kill lost nothing either

    new, told, state = settings("second")
    command("restore", f"backup={tmp_path / 'backups'}", f"artifacts={new}", f"state={state}")
    found = stored(state, new)
    assert {*before, *quiet_ids} <= found
    assert len(found - quiet_ids) % BATCH == 0, "a call is stored as a whole"
    again = processes.start(store=new, **told)
    with Client(again.address) as client:
        status = client.status()
        assert (status.user_count, status.event_count) == (41, len(found))
        result = client.recommend(RecommendQuery(user_id="quiet"))
        assert ([item.item_id for item in result.items], result.degradation) == (list_before, "none")
        count = client.record_events([Event(*before[0][:1], "i1", "click", event_id=before[0][1])])
        assert count.duplicate_count == 1


@pytest.fixture
def own_redis(tmp_path: Path) -> Any:
    """Starts Redis servers in folders of their own."""
    started: list[RedisServer] = []

    def begin() -> RedisServer:
        started.append(RedisServer(tmp_path / f"redis-{len(started)}"))
        return started[-1]

    yield begin
    for server in started:
        server.close()
