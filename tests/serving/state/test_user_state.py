from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import polars as pl
import pytest

from conf.errors import InputError
from serving.state.contracts.user_state import (
    MICROS,
    ImportResult,
    NewEvent,
    Outcome,
    StateUnavailableError,
    content_id,
    log_name,
)
from serving.state.histories_reader import open_histories
from serving.state.sqlite.file import SqliteFile, one
from serving.state.sqlite.users import SqliteUserState

T = TypeVar("T")
DAY = 86_400 * MICROS
START = 1_700_000_000 * MICROS


def with_state(path: Path, scenario: Callable[[SqliteUserState], Awaitable[T]]) -> T:
    async def run() -> T:
        file = SqliteFile(path)
        try:
            return await scenario(SqliteUserState(file))
        finally:
            await file.close()

    return asyncio.run(run())


def new(user: str, item: str, time_us: int, event_id: str, kind: str = "click") -> NewEvent:
    return NewEvent(user, item, kind, time_us, f"client:{event_id}")


def histories(path: Path, rows: list[tuple[str, str, str, int, int]], **changes: Any) -> Path:
    columns = ["user_id", "item_id", "event", "timestamp", "order"]
    pl.DataFrame(rows, schema=columns, orient="row").with_columns(**changes).write_parquet(path)
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


def test_a_failing_import_leaves_nothing_behind(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = histories(tmp_path / "h.parquet", [(f"u{n}", "a", "click", n, n) for n in range(10)])
    with open_histories(path) as found:
        good = pl.concat(list(found.events()))

    async def broken(path: Path, rows: int) -> AsyncIterator[pl.DataFrame]:
        yield good.with_columns(kind=pl.when(pl.col("time_us") < 7 * MICROS).then(pl.col("kind")))

    monkeypatch.setattr("serving.state.sqlite.users.event_slices", broken)

    async def scenario(state: SqliteUserState) -> tuple[int, int]:
        with pytest.raises(StateUnavailableError):
            await state.import_histories(path)
        monkeypatch.undo()
        stats = await state.stats()
        return stats.events, (await state.import_histories(path)).new

    assert with_state(file, scenario) == (0, 10)


def test_an_import_that_is_cut_off_is_completed_later(
    tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = histories(tmp_path / "h.parquet", [(f"u{n}", "a", "click", n, n) for n in range(10)])
    monkeypatch.setattr("serving.state.sqlite.users._IMPORT_SLICE", 3)

    async def scenario(state: SqliteUserState) -> tuple[int, ImportResult, int]:
        whole, calls = state._import_slice, []

        def slice_(db: sqlite3.Connection, frame: pl.DataFrame) -> tuple[int, int]:
            calls.append(frame.height)
            if len(calls) == 3:
                raise sqlite3.OperationalError("disk full")
            return whole(db, frame)

        monkeypatch.setattr(state, "_import_slice", slice_)
        with pytest.raises(StateUnavailableError, match="disk full"):
            await state.import_histories(path)
        between = (await state.stats()).events
        return between, await state.import_histories(path), (await state.stats()).events

    assert with_state(file, scenario) == (6, ImportResult(already_imported=False, rows=10, new=4), 10)


def test_missing_columns_and_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "h.parquet"
    pl.DataFrame({"user_id": ["u"], "item_id": ["a"]}).write_parquet(path)
    with pytest.raises(InputError, match="no column 'event'"), open_histories(path):
        pass
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match="not a histories table"), open_histories(path):
        pass


@pytest.mark.parametrize("content", ["database", "newer", "folder"])
def test_files_that_are_no_user_state_are_refused(tmp_path: Path, file: Path, content: str) -> None:
    if content == "folder":
        file = tmp_path / "missing" / "state.sqlite"
    else:
        with sqlite3.connect(file) as db:
            db.execute("CREATE TABLE mine (x)" if content == "database" else "PRAGMA user_version = 99")
        db.close()

    async def opening() -> None:
        SqliteFile(file)

    with pytest.raises(InputError, match=r"state\.sqlite"):
        asyncio.run(opening())


def test_processes_that_begin_together_make_one_file(file: Path) -> None:
    opened: list[SqliteFile] = []

    async def opening() -> None:
        opened.append(SqliteFile(file))

    threads = [threading.Thread(target=lambda: asyncio.run(opening())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    salts = {one(f.writer, "SELECT hex(value) FROM settings WHERE name = 'salt'") for f in opened}
    assert len(opened) == 8
    assert len(salts) == 1
    for f in opened:
        asyncio.run(f.close())


def test_a_locked_file_is_unavailable_not_a_crash(file: Path) -> None:
    async def scenario(state: SqliteUserState) -> list[Outcome]:
        state._file.writer.execute("PRAGMA busy_timeout = 10")
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StateUnavailableError):
            await state.record([new("u", "a", START, "1")])
        other.execute("ROLLBACK")
        other.close()
        return await state.record([new("u", "a", START, "1")])

    assert with_state(file, scenario) == [Outcome.new]


def test_content_ids_differ_when_the_content_does() -> None:
    names = {
        content_id("a", "click", 1),
        content_id("a", "click", 2),
        content_id("a", "buy", 1),
        content_id("b", "click", 1),
    }
    assert len(names) == 4
    assert content_id("a", "click", 1) == content_id("a", "click", 1)


def test_log_names_are_short_hashes() -> None:
    assert log_name("alice@example.com") == "ff8d9819"
