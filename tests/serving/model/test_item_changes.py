"""The store of item changes, and the state file that holds it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from ranking.catalogue.live_catalogue import ItemChange
from serving.state.contracts.item_changes import ItemChanges
from serving.state.contracts.user_state import StateUnavailableError
from serving.state.sqlite.file import SqliteFile
from serving.state.sqlite.items import SqliteItemChanges

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


def test_a_file_that_cannot_be_written_is_unavailable(path: Path) -> None:
    async def scenario(changes: ItemChanges) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert isinstance(changes, SqliteItemChanges)
        changes._file.writer.execute("PRAGMA busy_timeout = 10")
        with pytest.raises(StateUnavailableError):
            await changes.store([BOOT])
        other.execute("ROLLBACK")
        other.close()
        assert await changes.store([BOOT]) == 1

    with_changes(path, scenario)
