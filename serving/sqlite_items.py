"""Item changes in SQLite: the embedded store of a single server."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Final

from ranking.live_catalogue import ItemChange, TextVector
from serving.item_changes import StoredChange
from serving.sqlite_file import SqliteFile, one

# Settings are bytes; those of equal length compare like the numbers.
_ACKNOWLEDGE: Final = """
INSERT INTO settings VALUES ('acknowledged', ?)
ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)
"""
_KEEP: Final = "UPDATE item_changes SET text_key = ?, text_vector = ? WHERE revision = ?"
ACKNOWLEDGED: Final = "SELECT value FROM settings WHERE name = 'acknowledged'"
"""Finds the revision that has been acknowledged."""
DELETED_SINCE: Final = """
SELECT json_group_array(item_id) FROM item_changes WHERE revision > {revision} AND attributes IS NULL
"""
"""Finds the items that have been deleted by changes after a revision, as a JSON array."""
_NEWEST: Final = "SELECT coalesce(max(revision), 0) FROM item_changes"


class SqliteItemChanges:
    """Implements `serving.item_changes.ItemChanges` in an open file."""

    def __init__(self, file: SqliteFile) -> None:
        """Use an open file, which whoever opened it closes."""
        self._file = file

    async def store(self, changes: Sequence[ItemChange], deadline: float | None = None) -> int:
        """Store changes; see ItemChanges."""
        return await self._file.write(lambda db: _store(db, changes), deadline)

    async def since(self, revision: int, limit: int) -> list[StoredChange]:
        """Return later changes; see ItemChanges."""
        return await self._file.read(lambda db: _since(db, revision, limit))

    async def keep(self, encoded: Sequence[tuple[StoredChange, TextVector]]) -> None:
        """Keep vectors of texts; see ItemChanges."""
        rows = [(vector.key, vector.values, stored.revision) for stored, vector in encoded]
        await self._file.write(lambda db: db.executemany(_KEEP, rows) and None)

    async def newest(self) -> int:
        """Return the newest revision; see ItemChanges."""
        return await self._file.read(lambda db: int(one(db, _NEWEST)))

    async def acknowledge(self, revision: int) -> None:
        """Let every process on the file know; see ItemChanges."""
        await self._file.write(lambda db: db.execute(_ACKNOWLEDGE, (revision.to_bytes(8, "big"),)) and None)


def revision_of(acknowledged: bytes | None) -> int:
    """Return the revision that `ACKNOWLEDGED` has found; 0 where there is none."""
    return 0 if acknowledged is None else int.from_bytes(acknowledged, "big")


def _store(db: sqlite3.Connection, changes: Sequence[ItemChange]) -> int:
    revision = int(one(db, _NEWEST))
    for change in changes:
        revision += 1
        attributes = None if change.attributes is None else json.dumps(dict(change.attributes))
        db.execute(
            "INSERT OR REPLACE INTO item_changes (item_id, revision, attributes) VALUES (?, ?, ?)",
            (change.item_id, revision, attributes),
        )
    return revision


def _since(db: sqlite3.Connection, revision: int, limit: int) -> list[StoredChange]:
    rows = db.execute(
        "SELECT revision, item_id, attributes, text_key, text_vector FROM item_changes "
        "WHERE revision > ? ORDER BY revision LIMIT ?",
        (revision, limit),
    ).fetchall()
    return [
        StoredChange(
            number,
            ItemChange(
                item_id,
                None if text is None else json.loads(text),
                None if vector is None else TextVector(key, vector),
            ),
        )
        for number, item_id, text, key, vector in rows
    ]
