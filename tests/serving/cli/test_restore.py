"""`shelfwise restore` beside other stores, after failures, and of users who returned after an erasure."""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import serving.state.redis.backup as redis_backup
from conf.errors import InputError
from conf.serving import RedisConfig
from ranking.bundle.store import publish_version
from serving.cli.operate.archive import backups
from serving.state.contracts.user_state import NewEvent
from serving.state.redis.store import as_text, open_redis
from tests.serving.backends import Backend
from tests.serving.cli.test_backup import (
    SECOND,
    SHOWN,
    back_up,
    bring_back,
    content,
    elsewhere,
    event,
    fill,
    write_model,
)
from tests.serving.redis_server import RedisServer


@pytest.fixture
def shared(redis_server: RedisServer) -> Backend:
    """Return an empty store in Redis, which other stores may share."""
    with redis_server.client as client:
        client.flushall()
    return Backend(redis_server.url, redis_server.folder)


def keys_of(backend: Backend) -> list[str]:
    """Return all keys of a Redis, also those of other prefixes."""

    async def read() -> list[str]:
        store = await open_redis(backend.state, RedisConfig(prefix=backend.prefix), create=None)
        try:
            return sorted(as_text(key) for key in await store.client.keys("*"))
        finally:
            await store.close()

    return asyncio.run(read())


def test_a_user_who_returned_after_an_erasure_before_the_backup_is_kept(
    backend: Backend, tmp_path: Path
) -> None:
    fill(backend)
    backend.users(lambda users: users.delete_user("ana"))
    again = NewEvent("ana", "i5", "click", time.time_ns() // 1000 + 5 * SECOND, "client:again", SHOWN)
    assert backend.users(lambda users: users.record([again]))[0].value == "new"
    place, _ = back_up(backend, tmp_path / "backups")
    before = content(backend)
    assert "erased again" not in bring_back(place, backend, replace=True)
    assert content(backend) == before
    backend.users(lambda users: users.delete_user("ana"))  # again, after the backup
    assert "1 users deleted since were erased again" in bring_back(place, backend, replace=True)
    assert sorted({e.user_id for e in content(backend)[0]}) == ["bjørn", "c"]


def test_a_store_whose_prefix_begins_alike_stays(shared: Backend, tmp_path: Path) -> None:
    neighbour = Backend(shared.state, shared.folder, f"{shared.prefix}test:")
    fill(shared)
    fill(neighbour)
    place, _ = back_up(shared, tmp_path / "backups")
    shared.users(lambda users: users.record([event("late", 5)]))
    before = content(neighbour)
    bring_back(place, shared, replace=True)
    assert content(neighbour) == before
    assert "late" not in {e.user_id for e in content(shared)[0]}


def test_a_restore_that_redis_fails_leaves_no_key_and_the_former_store(
    shared: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(shared)
    place, _ = back_up(shared, tmp_path / "backups")
    shared.users(lambda users: users.record([event("late", 5)]))
    before, keys = content(shared), keys_of(shared)
    monkeypatch.setattr(redis_backup, "_SWAP", "return redis.error_reply('OOM command not allowed')")
    with pytest.raises(InputError, match="command not allowed"):
        bring_back(place, shared, replace=True)
    assert keys_of(shared) == keys
    assert content(shared) == before


def test_the_next_restore_removes_the_keys_of_a_killed_one(
    shared: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(shared)
    place, _ = back_up(shared, tmp_path / "backups")
    keys = keys_of(shared)
    with monkeypatch.context() as patched:
        patched.setattr(redis_backup, "_SWAP", "return redis.error_reply('no')")
        patched.setattr(redis_backup, "_escaped", lambda _: "nothing")  # so that its keys stay
        with pytest.raises(InputError):
            bring_back(place, shared, replace=True)
    assert len(keys_of(shared)) == 2 * len(keys)
    bring_back(place, shared, replace=True)
    assert keys_of(shared) == keys


def test_events_that_arrive_during_a_copy_are_in_its_feed_only_if_their_user_has_them(
    shared: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(shared)
    read_users = redis_backup._of_users

    async def then_record(store: Any, users: Any) -> Any:
        parts = await read_users(store, users)
        late = threading.Thread(target=lambda: shared.users(lambda s: s.record([event("ana", 77)])))
        late.start()
        await asyncio.to_thread(late.join)
        return parts

    monkeypatch.setattr(redis_backup, "_of_users", then_record)
    place, _ = back_up(shared, tmp_path / "backups")
    shared.users(lambda users: users.delete_user("ana"))
    bring_back(place, shared, replace=True)
    feed = content(shared)[2][0]
    assert [e.item_id for e in feed.events] == ["i1", "i2"]


@pytest.mark.parametrize(
    "line",
    [
        b"\x1f\x8b\x08 compressed",
        b'{"erasure": "00", "time_us": null}',
        b'{"erasure": "00"}',
        b'{"erasure": "ana", "time_us": 4503599627370496}',
        b"[]",
        b'{"time": "20',
    ],
)
def test_a_line_that_is_no_entry_of_an_audit_log_is_named(tmp_path: Path, line: bytes) -> None:
    backend = Backend(str(tmp_path / "state.sqlite"), tmp_path)
    fill(backend)
    place, _ = back_up(backend, tmp_path / "backups")
    log = tmp_path / "audit.jsonl"
    log.write_bytes(json.dumps({"action": "UpsertItems", "time_us": 1}).encode() + b"\n" + line)
    before = content(backend)
    with pytest.raises(InputError, match=r"audit.jsonl: line 2 is not an entry of an audit log; take it out"):
        bring_back(place, backend, erasures=str(log), replace=True)
    assert content(backend) == before


def test_a_bundle_that_cannot_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"
    publish_version(store, write_model, {"hash_users": False})
    (store / "histories.parquet").write_text("h")
    backend = Backend(str(store / "state.sqlite"), store)
    fill(backend)
    place, _ = back_up(backend, tmp_path / "backups", bundle=True)
    new = elsewhere(backend, tmp_path / "new")

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copytree", fail)
        with pytest.raises(InputError, match="bundle cannot be written \\(No space left on device\\)"):
            bring_back(place, new)
    assert content(new) == content(backend)
    assert not (tmp_path / "new" / "CURRENT").exists()
    bring_back(place, new, replace=True)
    assert (tmp_path / "new" / "histories.parquet").read_text() == "h"


def test_earlier_backups_are_removed_before_another_one_may_begin(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(backend)
    output = tmp_path / "backups"
    back_up(backend, output)
    refused = []

    def remove(folder: Path, keep: int) -> list[Path]:
        with pytest.raises(InputError, match="another backup is being written there"):
            back_up(backend, output)
        refused.append(keep)
        return backups(folder)[:-keep]

    monkeypatch.setattr("serving.cli.operate.backup.prune", remove)
    back_up(backend, output, keep=1)
    assert refused == [1]
