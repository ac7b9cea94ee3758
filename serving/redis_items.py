"""Item changes in Redis: the store of several servers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from ranking.live_catalogue import ItemChange, TextVector
from serving.item_changes import StoredChange
from serving.redis_store import RedisStore

_KEY_BYTES: Final = 16
"""A vector is stored behind its key."""


class RedisItemChanges:
    """Implements `serving.item_changes.ItemChanges`."""

    def __init__(self, store: RedisStore) -> None:
        """Use an open store, which whoever opened it closes."""
        self._store = store
        self._contents = store.key("items")
        self._order = store.key("item-revisions")
        self._deleted = store.key("deleted-items")
        self._vectors = store.key("item-vectors")

    async def store(self, changes: Sequence[ItemChange], deadline: float | None = None) -> int:
        """Store changes; see ItemChanges."""
        arguments: list[str] = []
        for change in changes:
            content = "" if change.attributes is None else json.dumps(dict(change.attributes))
            arguments += (change.item_id, content)
        keys = (self._contents, self._order, self._deleted, self._vectors)
        return int(await self._store.run("store_items", lambda: (keys, arguments), deadline))

    async def since(self, revision: int, limit: int) -> list[StoredChange]:
        """Return later changes; see ItemChanges."""
        keys = (self._contents, self._order, self._vectors)
        found = iter(await self._store.run("items_since", lambda: (keys, (revision, limit))))
        return [
            StoredChange(
                int(number),
                ItemChange(item.decode(), json.loads(content) if content else None, _unpacked(kept)),
            )
            for item, number, content, kept in zip(found, found, found, found, strict=True)
        ]

    async def keep(self, encoded: Sequence[tuple[StoredChange, TextVector]]) -> None:
        """Keep vectors of texts; see ItemChanges."""
        arguments: list[str | int | bytes] = []
        for stored, vector in encoded:
            arguments += (stored.change.item_id, stored.revision, vector.key + vector.values)
        await self._store.run("keep_vectors", lambda: ((self._order, self._vectors), arguments))

    async def newest(self) -> int:
        """Return the newest revision; see ItemChanges."""
        store = self._store
        return int(await store.ask(lambda: store.client.hget(store.key("store"), "revision")) or 0)

    async def acknowledge(self, revision: int) -> None:
        """Let every server know; see ItemChanges."""
        await self._store.run("raise", lambda: ((), ("acknowledged", revision)))


def _unpacked(kept: bytes) -> TextVector | None:
    return TextVector(kept[:_KEY_BYTES], kept[_KEY_BYTES:]) if kept else None
