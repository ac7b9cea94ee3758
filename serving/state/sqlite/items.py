"""Item changes in SQLite: the embedded store of one machine."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from ranking.catalogue.filter_language import AttributeKind
from ranking.catalogue.live_catalogue import Declaration, ItemChange, TextVector
from serving.state.contracts.item_changes import Declared, Replaced, StoredChange
from serving.state.sqlite.file import SqliteFile, one

# Settings are bytes; big-endian numbers of equal length compare like numbers.
_ACKNOWLEDGE: Final = """
INSERT INTO settings VALUES ('acknowledged', ?)
ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)
"""
_STORE_VECTOR: Final = "UPDATE item_changes SET text_key = ?, text_vector = ? WHERE revision = ?"
ACKNOWLEDGED: Final = "SELECT value FROM settings WHERE name = 'acknowledged'"
"""Selects the last acknowledged revision."""
DELETED_SINCE: Final = """
SELECT json_group_array(item_id) FROM item_changes WHERE revision > {revision} AND attributes IS NULL
"""
"""Selects the items deleted by changes after a revision, as a JSON array."""
_NEWEST: Final = """
SELECT max(
  coalesce((SELECT max(revision) FROM item_changes), 0),
  coalesce((SELECT max(revision) FROM attributes), 0)
)
"""
_CONTENT: Final = "item_id, attributes, text_key, text_vector, partial"
_OF_ITEM: Final = f"SELECT revision, {_CONTENT} FROM item_changes WHERE item_id = ?"
_SINCE: Final = f"SELECT revision, {_CONTENT} FROM item_changes WHERE revision > ? ORDER BY revision LIMIT ?"
_DECLARED_SINCE: Final = (
    "SELECT revision, name, kind FROM attributes WHERE revision > ? ORDER BY revision LIMIT ?"
)
_WRITE: Final = f"INSERT OR REPLACE INTO item_changes (revision, {_CONTENT}) VALUES (?, ?, ?, ?, ?, ?)"


class SqliteItemChanges:
    """Implements `serving.state.contracts.item_changes.ItemChanges` in an open file."""

    def __init__(self, file: SqliteFile) -> None:
        """Use an open file, which this object does not close."""
        self._file = file

    async def store(self, changes: Sequence[ItemChange], deadline: float | None = None) -> int:
        """Store changes; see ItemChanges."""
        return await self._file.write(lambda db: _store(db, changes), deadline)

    async def contents(
        self, item_ids: Sequence[str], deadline: float | None = None
    ) -> list[tuple[int, ItemChange | None]]:
        """Return the newest changes of items; see ItemChanges."""
        return await self._file.read(lambda db: [_content(db, item_id) for item_id in item_ids], deadline)

    async def replace(
        self, changes: Sequence[ItemChange], known: Sequence[int], deadline: float | None = None
    ) -> Replaced:
        """Store changes of unchanged items; see ItemChanges."""
        return await self._file.write(lambda db: _replace(db, changes, known), deadline)

    async def declare(self, declarations: Sequence[Declaration], deadline: float | None = None) -> Declared:
        """Store declarations; see ItemChanges."""
        return await self._file.write(lambda db: _declare(db, declarations), deadline)

    async def declared(self) -> dict[str, AttributeKind]:
        """Return all declared attributes; see ItemChanges."""
        return await self._file.read(_declared)

    async def since(self, revision: int, limit: int) -> list[StoredChange]:
        """Return later changes; see ItemChanges."""
        return await self._file.read(lambda db: _since(db, revision, limit))

    async def store_vectors(self, encoded: Sequence[tuple[StoredChange, TextVector]]) -> None:
        """Store text vectors; see ItemChanges."""
        rows = [(vector.key, vector.values, stored.revision) for stored, vector in encoded]
        await self._file.write(lambda db: db.executemany(_STORE_VECTOR, rows) and None)

    async def newest(self) -> int:
        """Return the newest revision; see ItemChanges."""
        return await self._file.read(lambda db: int(one(db, _NEWEST)))

    async def acknowledge(self, revision: int) -> None:
        """Store an acknowledged revision; see ItemChanges."""
        await self._file.write(lambda db: db.execute(_ACKNOWLEDGE, (revision.to_bytes(8, "big"),)) and None)


def revision_of(acknowledged: bytes | None) -> int:
    """Return the revision in a result of `ACKNOWLEDGED`; 0 where there is none."""
    return 0 if acknowledged is None else int.from_bytes(acknowledged, "big")


def _store(db: sqlite3.Connection, changes: Sequence[ItemChange]) -> int:
    revision = int(one(db, _NEWEST))
    for change in changes:
        revision += 1
        _write(db, revision, change, None)
    return revision


def _replace(db: sqlite3.Connection, changes: Sequence[ItemChange], known: Sequence[int]) -> Replaced:
    revision, stored, conflicts = int(one(db, _NEWEST)), 0, []
    for position, (change, expected) in enumerate(zip(changes, known, strict=True)):
        if _content(db, change.item_id)[0] == expected:
            revision += 1
            stored = revision
            _write(db, revision, change, change.encoded)
        else:
            conflicts.append(position)
    return Replaced(stored, conflicts)


def _write(db: sqlite3.Connection, revision: int, change: ItemChange, encoded: TextVector | None) -> None:
    attributes = None if change.attributes is None else json.dumps(dict(change.attributes))
    key, vector = (None, None) if encoded is None else (encoded.key, encoded.values)
    db.execute(_WRITE, (revision, change.item_id, attributes, key, vector, int(change.partial)))


def _content(db: sqlite3.Connection, item_id: str) -> tuple[int, ItemChange | None]:
    row = db.execute(_OF_ITEM, (item_id,)).fetchone()
    return (0, None) if row is None else (row[0], _change(*row[1:]))


def _declare(db: sqlite3.Connection, declarations: Sequence[Declaration]) -> Declared:
    known = _declared(db)
    conflicts = {d.name: known[d.name] for d in declarations if known.get(d.name, d.kind) is not d.kind}
    if conflicts:
        return Declared(0, conflicts)
    revision = int(one(db, _NEWEST))
    for name, kind in {d.name: d.kind for d in declarations}.items():
        if name not in known:
            revision += 1
            db.execute("INSERT INTO attributes VALUES (?, ?, ?)", (name, kind.name, revision))
    return Declared(revision, {})


def _declared(db: sqlite3.Connection) -> dict[str, AttributeKind]:
    return {name: AttributeKind[kind] for name, kind in db.execute("SELECT name, kind FROM attributes")}


def _since(db: sqlite3.Connection, revision: int, limit: int) -> list[StoredChange]:
    changes = [StoredChange(row[0], _change(*row[1:])) for row in db.execute(_SINCE, (revision, limit))]
    changes += [
        StoredChange(number, Declaration(name, AttributeKind[kind]))
        for number, name, kind in db.execute(_DECLARED_SINCE, (revision, limit))
    ]
    return sorted(changes, key=lambda stored: stored.revision)[:limit]


def _change(item_id: str, text: str | None, key: Any, vector: Any, partial: int) -> ItemChange:  # noqa: ANN401 - columns
    encoded = None if vector is None else TextVector(key, vector)
    return ItemChange(item_id, None if text is None else json.loads(text), encoded, bool(partial))
