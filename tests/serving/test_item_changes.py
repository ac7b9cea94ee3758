"""The store of item changes, and the state file that holds it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from ranking.live_catalogue import ItemChange
from serving.item_changes import ItemChanges, StoredChange
from serving.sqlite_file import SqliteFile
from serving.sqlite_items import SqliteItemChanges
from serving.user_state import StateUnavailable

T = TypeVar("T")


def with_changes(path: Path, scenario: Callable[[ItemChanges], Awaitable[T]]) -> T:
    async def run() -> T:
        file = SqliteFile(path)
        try:
            return await scenario(SqliteItemChanges(file))
        finally:
            await file.close()

    return asyncio.run(run())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.sqlite"


BOOT = ItemChange(
    "a", {"title": "Boot – größe", "price": 3.0, "tags": ["x", "y"], "new": True, "brand": None}
)
HAT = ItemChange("b", {"title": "Hat"})


def test_changes_are_told_in_order_and_the_newest_of_an_item_counts(path: Path) -> None:
    async def scenario(changes: ItemChanges) -> None:
        assert await changes.newest() == 0
        assert await changes.since(0, 10) == []
        assert await changes.store([BOOT, HAT]) == 2
        assert await changes.since(0, 10) == [StoredChange(1, BOOT), StoredChange(2, HAT)]
        assert await changes.since(1, 10) == [StoredChange(2, HAT)]
        assert await changes.since(0, 1) == [StoredChange(1, BOOT)]
        gone = ItemChange("a", None)
        assert await changes.store([gone, HAT, HAT]) == 5
        assert await changes.since(0, 10) == [StoredChange(3, gone), StoredChange(5, HAT)]
        assert await changes.newest() == 5

    with_changes(path, scenario)


def test_changes_are_there_after_reopening(path: Path) -> None:
    async def write(changes: ItemChanges) -> int:
        return await changes.store([BOOT, HAT, ItemChange("b", None)])

    async def read(changes: ItemChanges) -> list[StoredChange]:
        return await changes.since(0, 10)

    assert with_changes(path, write) == 3
    assert with_changes(path, read) == [StoredChange(1, BOOT), StoredChange(3, ItemChange("b", None))]


def test_two_processes_do_not_use_a_revision_twice(path: Path) -> None:
    async def scenario(left: ItemChanges) -> None:
        file = SqliteFile(path)
        right = SqliteItemChanges(file)
        numbers = await asyncio.gather(*(store.store([HAT]) for store in (left, right) for _ in range(20)))
        assert sorted(numbers) == list(range(1, 41))
        await file.close()

    with_changes(path, scenario)


def test_a_file_that_cannot_be_written_is_unavailable(path: Path) -> None:
    async def scenario(changes: ItemChanges) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert isinstance(changes, SqliteItemChanges)
        changes._file.writer.execute("PRAGMA busy_timeout = 10")
        with pytest.raises(StateUnavailable):
            await changes.store([BOOT])
        other.execute("ROLLBACK")
        other.close()
        assert await changes.store([BOOT]) == 1

    with_changes(path, scenario)
