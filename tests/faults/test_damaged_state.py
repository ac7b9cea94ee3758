"""A state file, its log, histories or keys that are damaged: named at a start, survived while serving."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from serving.state.contracts.user_state import NewEvent
from serving.state.sqlite.file import SqliteFile
from serving.state.sqlite.users import SqliteUserState
from shelfwise_client import Client, Event, RecommendQuery, ServiceError
from tests.faults.conftest import Processes
from tests.serving.conftest import Harness

EVENTS = 3000


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state of many pages, all of them in the file."""
    path = tmp_path_factory.mktemp("filled") / "state.sqlite"
    events = [NewEvent(f"u{n % 50}", f"i{n % 30}", "click", n, f"client:{n}") for n in range(EVENTS)]

    async def fill() -> None:
        file = SqliteFile(path)
        await SqliteUserState(file).record(events)
        await file.close()

    asyncio.run(fill())
    return path


def overwrite(path: Path, start: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(os.urandom(length))


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def make_shop(path: Path) -> None:
    """Put another program's database there."""
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE orders (id)")
    db.close()


DAMAGES: dict[str, Callable[[Path], object]] = {
    "header": lambda path: overwrite(path, 0, 100),
    "first page": lambda path: overwrite(path, 100, 3000),
    "all pages after the first": lambda path: overwrite(path, 4096, path.stat().st_size - 4096),
    "cut short": lambda path: os.truncate(path, 4096 * 2),
    "half a page": lambda path: os.truncate(path, 1000),
    "text": lambda path: path.write_text("not a database, although long enough to be one\n" * 1000),
    "folder": make_folder,
    "another database": make_shop,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_start_on_a_damaged_state_is_one_line_and_leaves_it_as_it_is(
    processes: Processes, filled: Path, damage: str
) -> None:
    path = Path(shutil.copy(filled, processes.store))
    DAMAGES[damage](path)
    before = path.read_bytes() if path.is_file() else b""
    code, line = processes.begin(processes.command()).failed()
    assert code == 2
    assert f"{path}: " in line
    assert before == (
        path.read_bytes() if path.is_file() else b""
    )  # evidence, and perhaps something to be saved


def test_a_damaged_log_costs_what_was_in_it_and_not_more(processes: Processes) -> None:
    """A power failure may leave a torn end of the log; complete calls before it are recovered."""
    server = processes.start()
    with Client(server.address) as client:
        client.record_events([Event("u", "i7", "click", event_id="first")])
        for number in range(20):
            client.record_events([Event(f"u{number}", f"i{n}", "click", event_id=f"e{n}") for n in range(10)])
    server.kill()  # the log stays
    aside = shutil.copytree(processes.store, processes.store.with_name("aside"))
    log = processes.store / "state.sqlite-wal"
    counts = []
    for place in (0.9, 0.5, 0.1, 0.0):
        shutil.copytree(aside, processes.store, dirs_exist_ok=True)
        overwrite(log, int(log.stat().st_size * place), 600)
        again = processes.start()
        with Client(again.address) as client:
            counts.append(client.status().event_count)
            assert client.record_events([Event("v", "i7", "click")]).new_count == 1
        again.kill()
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[2]
    assert all(count == 0 or count % 10 == 1 for count in counts)


def test_a_state_damaged_while_serving_stops_changes_and_not_lists(server: Harness) -> None:
    with Client(server.address) as client:
        for start in range(0, EVENTS, 1000):
            client.record_events(
                [
                    Event(f"u{n % 50}", f"i{n % 30}", "click", event_id=f"e{n}")
                    for n in range(start, start + 1000)
                ]
            )
        users = server.running._stores.users
        assert isinstance(users, SqliteUserState)
        file = users._file
        file.writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        overwrite(file.path, 4096, file.path.stat().st_size - 4096)
        for db in (file.writer, file._reader):
            db.execute("PRAGMA cache_size = 0")
            db.execute("PRAGMA shrink_memory")
        page = client.recommend(RecommendQuery(user_id="u7", page_size=3))
        assert page.degradation == "history_unavailable"
        assert [item.item_id for item in page.items] == ["i0", "i1", "i2"]
        with pytest.raises(ServiceError) as caught:
            client.record_events([Event("u7", "i7", "click")])
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "STATE_UNAVAILABLE")
        assert client.status().model_version == "v1"


@pytest.mark.parametrize("content", [b"", b"nonsense", b"PAR1" + b"\0" * 100 + b"PAR1"])
def test_damaged_histories_are_one_line(processes: Processes, content: bytes) -> None:
    (processes.store / "histories.parquet").write_bytes(content)
    code, line = processes.begin(processes.command()).failed()
    assert code == 2
    assert f"{processes.store / 'histories.parquet'}: not a histories table" in line


@pytest.mark.parametrize("content", ["", "nonsense", '{"keys": [{"name": "x"}]}'])
def test_a_damaged_key_file_does_not_open_the_door(processes: Processes, content: str) -> None:
    path = processes.store / "keys.json"
    path.write_text(content)
    code, line = processes.begin(processes.command(keys=str(path))).failed()
    assert code == 2
    assert f"{path}: " in line
    assert content not in line or not content
