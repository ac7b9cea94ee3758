"""`shelfwise backup` and `restore`, of both kinds of stores."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.operating import BackupConfig, RestoreConfig
from conf.serving import RedisConfig
from ranking.bundle.store import VERSIONS, current_version, publish_version, verify, versions
from ranking.catalogue.live_catalogue import ItemChange, TextVector
from serving.cli.operate.archive import HEADER, backups
from serving.cli.operate.backup import backup
from serving.cli.operate.restore import restore
from serving.state.contracts.item_changes import StoredChange
from serving.state.contracts.user_state import Exposure, NewEvent, StoredEvent
from serving.state.sqlite.file import SqliteFile
from tests.serving.backends import Backend

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
SHOWN = Exposure("r-1", 3, "home", "v1", "phone", 17, 0.5, "layout=wide")


def event(user: str, number: int, kind: str = "click", exposure: Exposure = SHOWN) -> NewEvent:
    return NewEvent(user, f"i{number}", kind, START + number * SECOND, f"client:{user}-{number}", exposure)


def fill(backend: Backend) -> None:
    """Record events of three users, one with an umlaut, and change items, one of them with a vector."""
    backend.users(lambda users: users.record([event("ana", n) for n in range(4)]))
    backend.users(
        lambda users: users.record([event("ana", 9, "impression"), event("bjørn", 1), event("c", 2)])
    )
    vector = TextVector(b"k" * 16, bytes(range(256)))
    changes = [ItemChange("i1", {"title": "Grün", "price": 2.5}), ItemChange("i2", None)]

    async def change(items: Any) -> None:
        revision = await items.store(changes)
        stored = (await items.since(0, 9))[0]
        await items.store_vectors([(stored, vector)])
        await items.acknowledge(revision)

    backend.items(change)


def content(backend: Backend) -> tuple[list[StoredEvent], list[StoredChange], Any]:
    """Return everything that a store says about itself."""

    async def read(stores: Any) -> Any:
        events = [e async for page in stores.users.stored(True) for e in page]
        feed = await stores.users.recorded_since(0, 100, 0)
        snapshot = await stores.users.snapshot("ana", 99, 0)
        stats = await stores.users.stats()
        return events, await stores.items.since(0, 99), (feed, snapshot, stats.users, stats.events)

    found: tuple[list[StoredEvent], list[StoredChange], Any] = backend.run(read)
    return found


def back_up(backend: Backend, output: Path, **settings: Any) -> tuple[Path, str]:
    said = io.StringIO()
    config = BackupConfig(
        str(backend.folder), backend.state, RedisConfig(prefix=backend.prefix), str(output), **settings
    )
    return backup(config, Console(file=said, width=300)), said.getvalue()


def bring_back(place: Path, backend: Backend, **settings: Any) -> str:
    said = io.StringIO()
    config = RestoreConfig(
        str(place), str(backend.folder), backend.state, RedisConfig(prefix=backend.prefix), **settings
    )
    restore(config, Console(file=said, width=300))
    return said.getvalue()


def elsewhere(backend: Backend, folder: Path) -> Backend:
    """Return an empty store of the same kind."""
    folder.mkdir(exist_ok=True)
    if backend.state.startswith("redis"):
        return Backend(backend.state, folder, "new?shop[*]:")
    return Backend(str(folder / "state.sqlite"), folder)


def test_a_restored_store_is_the_same(backend: Backend, tmp_path: Path) -> None:
    fill(backend)
    before = content(backend)
    place, said = back_up(backend, tmp_path / "backups")
    assert said == f"{place}: 7 events of 3 users, 2 item changes\n"
    new = elsewhere(backend, tmp_path / "new")
    told = bring_back(place, new)
    assert "7 events of 3 users as of 20" in told
    assert content(new) == before
    assert content(backend) == before
    outcomes = new.users(lambda users: users.record([event("ana", 1), event("ana", 50)]))
    assert [outcome.value for outcome in outcomes] == ["duplicate", "new"]


def test_a_backup_is_private_and_complete(backend: Backend, tmp_path: Path) -> None:
    fill(backend)
    place, _ = back_up(backend, tmp_path / "backups")
    assert place.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in place.iterdir()} == {0o600}
    header = json.loads((place / HEADER).read_text())
    counts = {name: header[name] for name in ("users", "events", "item_changes", "deleted_users")}
    assert counts == {"users": 3, "events": 7, "item_changes": 2, "deleted_users": 0}
    assert header["prefix"] == ("shelfwise:" if header["store"] == "redis" else "")
    assert [path.name for path in (tmp_path / "backups").iterdir()] == [place.name]


def test_what_is_there_is_replaced_only_where_it_is_said(backend: Backend, tmp_path: Path) -> None:
    fill(backend)
    place, _ = back_up(backend, tmp_path / "backups")
    before = content(backend)
    backend.users(lambda users: users.record([event("late", 5)]))
    later = content(backend)
    with pytest.raises(InputError, match="already; replace=true puts the backup in its place"):
        bring_back(place, backend)
    assert content(backend) == later
    bring_back(tmp_path / "backups", backend, replace=True)  # the newest of the folder
    assert content(backend) == before


def test_users_deleted_since_the_backup_are_erased_again(backend: Backend, tmp_path: Path) -> None:
    fill(backend)
    place, _ = back_up(backend, tmp_path / "backups")
    backend.users(lambda users: users.delete_user("ana"))
    assert "1 users deleted since were erased again" in bring_back(place, backend, replace=True)
    events, _, (feed, _, users, count) = content(backend)
    assert sorted({e.user_id for e in events}) == ["bjørn", "c"]
    assert (users, count) == (2, 2)
    assert [e.item_id for e in feed.events] == ["i1", "i2"]
    assert backend.users(lambda users: users.deleted_among(["ana", "c"])) == {"ana"}
    assert backend.users(lambda users: users.record([event("ana", 1)]))[0].value == "user_deleted"


def test_users_deleted_since_are_erased_again_by_the_audit_log(backend: Backend, tmp_path: Path) -> None:
    fill(backend)

    async def name(users: Any) -> str:
        return str(users.erasure_name("ana"))

    erased = backend.users(name)
    backend.users(lambda users: users.delete_user("c"))  # before the backup: it must not matter
    place, _ = back_up(backend, tmp_path / "backups")
    log = tmp_path / "audit.jsonl"
    lines = [
        {"action": "UpsertItems", "time_us": 1},
        {"action": "DeleteUser", "erasure": erased, "time_us": 2**52},
    ]
    lines.append({"action": "DeleteUser", "erasure": "0" * 32, "time_us": 1})  # before the backup
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    new = elsewhere(backend, tmp_path / "new")
    assert "1 users deleted since" in bring_back(place, new, erasures=str(log))
    assert sorted({e.user_id for e in content(new)[0]}) == ["bjørn"]
    assert new.users(lambda users: users.deleted_among(["ana", "bjørn", "c"])) == {"ana", "c"}
    log.write_text('{"half')
    with pytest.raises(InputError, match=r"audit.jsonl: line 1 is not an entry of an audit log"):
        bring_back(place, new, erasures=str(log), replace=True)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a byte": lambda p: p.write_bytes(p.read_bytes()[:-5] + b"x" + p.read_bytes()[-4:]),
    "the end": lambda p: os.truncate(p, p.stat().st_size - 1),
    "everything": lambda p: p.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_backup_changes_nothing(backend: Backend, tmp_path: Path, damage: str) -> None:
    fill(backend)
    place, _ = back_up(backend, tmp_path / "backups")
    state = next(path for path in place.iterdir() if path.name.startswith("state"))
    DAMAGE[damage](state)
    before = content(backend)
    with pytest.raises(
        InputError, match=rf"{state.name}: (missing|does not match its checksum); take an earlier"
    ):
        bring_back(place, backend, replace=True)
    assert content(backend) == before


def test_a_changed_header_is_refused(backend: Backend, tmp_path: Path) -> None:
    fill(backend)
    place, _ = back_up(backend, tmp_path / "backups")
    header = (place / HEADER).read_text()
    for wrong, says in (
        (header.replace('"users": 3', '"users": 4'), "changed or damaged"),
        (header.replace('"format": 1', '"format": 2'), "a backup of format 2, this program reads 1"),
        (header[:-20], "not the header of a backup"),
        ("[]", "not the header of a backup"),
    ):
        (place / HEADER).write_text(wrong)
        with pytest.raises(InputError, match=says):
            bring_back(place, elsewhere(backend, tmp_path / "new"))
    with pytest.raises(InputError, match="no backup here"):
        bring_back(tmp_path / "new", elsewhere(backend, tmp_path / "new"))


def test_a_state_of_a_later_program_is_refused(
    backend: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(backend)
    place, _ = back_up(backend, tmp_path / "backups")
    kind = "REDIS" if backend.state.startswith("redis") else "SQLITE"
    monkeypatch.setattr(f"serving.cli.operate.restore.{kind}_FORMAT", 0)
    before = content(backend)
    with pytest.raises(InputError, match=r"its state has format [18], this program reads up to 0; use the"):
        bring_back(place, backend, replace=True)
    assert content(backend) == before


def test_other_kinds_of_stores_are_refused(backend: Backend, tmp_path: Path) -> None:
    fill(backend)
    place, _ = back_up(backend, tmp_path / "backups")
    other = "redis://127.0.0.1:1/0" if not backend.state.startswith("redis") else str(tmp_path / "s.sqlite")
    with pytest.raises(
        InputError, match=r"a backup of (sqlite|redis), and state names (redis|sqlite); set state="
    ):
        bring_back(place, Backend(other, tmp_path))


def test_keep_removes_the_oldest_and_names_do_not_collide(backend: Backend, tmp_path: Path) -> None:
    fill(backend)
    made = [back_up(backend, tmp_path / "backups")[0] for _ in range(3)]
    assert backups(tmp_path / "backups") == made
    last, said = back_up(backend, tmp_path / "backups", keep=2)
    assert "; 2 earlier removed" in said
    assert backups(tmp_path / "backups") == [made[-1], last]
    bring_back(last, elsewhere(backend, tmp_path / "new"))


def test_nothing_to_back_up_leaves_nothing(backend: Backend, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file|holds no store"):
        back_up(backend, tmp_path / "backups")
    assert list((tmp_path / "backups").iterdir()) == []


def test_a_killed_backup_is_cleared_away_by_the_next(backend: Backend, tmp_path: Path) -> None:
    fill(backend)
    half = tmp_path / "backups" / ".20240101T000000Z.partial"
    half.mkdir(parents=True)
    (half / "state.sqlite").write_text("half")
    place, _ = back_up(backend, tmp_path / "backups")
    assert list((tmp_path / "backups").iterdir()) == [place]


def write_model(folder: Path) -> None:
    (folder / "model").write_text("m")


def test_the_bundle_comes_along(tmp_path: Path) -> None:
    store = tmp_path / "store"
    version = publish_version(store, write_model, {"hash_users": False})
    (store / "histories.parquet").write_text("h")
    backend = Backend(str(store / "state.sqlite"), store)
    fill(backend)
    assert f"; model {version} is not in it" in back_up(backend, tmp_path / "backups")[1]
    place, said = back_up(backend, tmp_path / "backups", bundle=True)
    assert f", bundle {version}" in said
    new = elsewhere(backend, tmp_path / "new")
    assert f"bundle {version} is in {tmp_path / 'new'}" in bring_back(place, new)
    assert current_version(tmp_path / "new") == version
    verify(tmp_path / "new" / VERSIONS / version)
    assert (tmp_path / "new" / "histories.parquet").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new" / VERSIONS / version / "model").stat().st_mode & 0o044
    later = publish_version(tmp_path / "new", write_model, {})
    bring_back(place, new, replace=True)
    assert versions(tmp_path / "new") == [version, later]
    assert current_version(tmp_path / "new") == version


def test_a_state_that_a_server_uses_is_not_replaced(tmp_path: Path) -> None:
    backend = Backend(str(tmp_path / "state.sqlite"), tmp_path)
    fill(backend)
    place, _ = back_up(backend, tmp_path / "backups")

    async def while_open() -> None:
        file = SqliteFile(tmp_path / "state.sqlite")
        try:
            with pytest.raises(InputError, match="a server uses it; stop the server before it is replaced"):
                await asyncio.to_thread(bring_back, place, backend, replace=True)
        finally:
            await file.close()

    asyncio.run(while_open())
    bring_back(place, backend, replace=True)


def test_a_damaged_state_is_replaced_with_its_log(tmp_path: Path) -> None:
    backend = Backend(str(tmp_path / "state.sqlite"), tmp_path)
    fill(backend)
    before = content(backend)
    place, _ = back_up(backend, tmp_path / "backups")
    (tmp_path / "state.sqlite").write_bytes(b"nonsense" * 1000)
    (tmp_path / "state.sqlite-wal").write_bytes(b"old")
    with pytest.raises(InputError, match="its erasures cannot be read .* move it away"):
        bring_back(place, backend, replace=True)
    (tmp_path / "state.sqlite").unlink()
    bring_back(place, backend)
    assert content(backend) == before
    assert not (tmp_path / "state.sqlite-wal").exists()


@pytest.mark.parametrize("step", ["copyfile", "replace_state", "fsync"])
def test_a_restore_that_fails_midway_leaves_the_former_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    backend = Backend(str(tmp_path / "state.sqlite"), tmp_path)
    fill(backend)
    place, _ = back_up(backend, tmp_path / "backups")
    backend.users(lambda users: users.record([event("late", 5)]))
    before = content(backend)

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    owner: Any = {"copyfile": shutil, "fsync": os, "replace_state": "serving.cli.operate.restore"}[step]
    with monkeypatch.context() as patched:
        if isinstance(owner, str):
            patched.setattr(f"{owner}.{step}", fail)
        else:
            patched.setattr(owner, step, fail)
        with pytest.raises(InputError, match="cannot be restored \\(No space left on device\\)"):
            bring_back(place, backend, replace=True)
    assert content(backend) == before
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_no_byte_of_an_erased_user_is_in_a_later_backup(backend: Backend, tmp_path: Path) -> None:
    fill(backend)
    backend.users(lambda users: users.record([event("erased-person", n) for n in range(50)]))
    backend.users(lambda users: users.delete_user("erased-person"))
    place, _ = back_up(backend, tmp_path / "backups")
    for path in place.iterdir():
        found = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        assert b"erased-person" not in found


def test_the_copy_is_one_database_without_free_pages(tmp_path: Path) -> None:
    backend = Backend(str(tmp_path / "state.sqlite"), tmp_path)
    fill(backend)
    place, _ = back_up(backend, tmp_path / "backups")
    with sqlite3.connect(place / "state.sqlite") as db:
        assert db.execute("PRAGMA freelist_count").fetchone() == (0,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    db.close()


def test_the_settings_compose(tmp_path: Path) -> None:
    config: Any = compose_command("backup", [f"artifacts={tmp_path}", "keep=7", "bundle=true"])
    assert (config.keep, config.bundle, config.output) == (7, True, "backups")
    with pytest.raises(InputError, match="keep must be 0 or more"):
        compose_command("backup", ["keep=-1"])
    with pytest.raises(InputError, match="backup=FOLDER is missing"):
        restore(RestoreConfig(), Console(file=io.StringIO()))
