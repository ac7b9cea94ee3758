"""Item changes in Redis: the store of several servers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from ranking.catalogue.filter_language import AttributeKind
from ranking.catalogue.live_catalogue import Declaration, ItemChange, TextVector
from serving.state.contracts.item_changes import Declared, Replaced, StoredChange
from serving.state.redis.store import Argument, RedisStore, as_text

_KEY_BYTES: Final = 16
"""Length of the key that precedes a stored vector."""
_PARTIAL: Final = "~"
"""Prefix of contents with only the attributes that differ from the model's item; never begins JSON."""


class RedisItemChanges:
    """Implements `serving.state.contracts.item_changes.ItemChanges`."""

    def __init__(self, store: RedisStore) -> None:
        """Use an open store, which this object does not close."""
        self._store = store
        self._contents = store.key("items")
        self._order = store.key("item-revisions")
        self._deleted = store.key("deleted-items")
        self._vectors = store.key("item-vectors")
        self._attributes = store.key("attributes")
        self._attribute_order = store.key("attribute-revisions")

    async def store(self, changes: Sequence[ItemChange], deadline: float | None = None) -> int:
        """Store changes; see ItemChanges."""
        arguments: list[Argument] = []
        for change in changes:
            arguments += (change.item_id, _packed(change))
        keys = (self._contents, self._order, self._deleted, self._vectors)
        return int(await self._store.run("store_items", lambda: (keys, arguments), deadline))

    async def contents(
        self, item_ids: Sequence[str], deadline: float | None = None
    ) -> list[tuple[int, ItemChange | None]]:
        """Return the newest changes of items; see ItemChanges."""
        keys = (self._contents, self._order, self._vectors)
        found = iter(await self._store.run("item_contents", lambda: (keys, tuple(item_ids)), deadline))
        return [
            (int(number), _unpacked(item, content, vector) if int(number) else None)
            for item, number, content, vector in zip(item_ids, found, found, found, strict=True)
        ]

    async def replace(
        self, changes: Sequence[ItemChange], known: Sequence[int], deadline: float | None = None
    ) -> Replaced:
        """Store changes of unchanged items; see ItemChanges."""
        arguments: list[Argument] = []
        for change, revision in zip(changes, known, strict=True):
            vector = b"" if change.encoded is None else change.encoded.key + change.encoded.values
            arguments += (change.item_id, revision, _packed(change), vector)
        keys = (self._contents, self._order, self._deleted, self._vectors)
        last, conflicts = await self._store.run("replace_items", lambda: (keys, arguments), deadline)
        return Replaced(int(last), [int(position) for position in conflicts])

    async def declare(self, declarations: Sequence[Declaration], deadline: float | None = None) -> Declared:
        """Store declarations; see ItemChanges."""
        arguments = [part for d in declarations for part in (d.name, d.kind.name)]
        keys = (self._attributes, self._attribute_order)
        last, conflicts = await self._store.run("declare", lambda: (keys, arguments), deadline)
        return Declared(int(last), _kinds(conflicts[::2], conflicts[1::2]))

    async def declared(self) -> dict[str, AttributeKind]:
        """Return all declared attributes; see ItemChanges."""
        store = self._store
        found = await store.execute(lambda: store.client.hgetall(self._attributes))
        return {as_text(name): AttributeKind[as_text(kind)] for name, kind in found.items()}

    async def since(self, revision: int, limit: int) -> list[StoredChange]:
        """Return later changes; see ItemChanges."""
        keys = (self._contents, self._order, self._vectors, self._attributes, self._attribute_order)
        items, attributes = await self._store.run("items_since", lambda: (keys, (revision, limit)))
        found, declared = iter(items), iter(attributes)
        changes = [
            StoredChange(int(number), _unpacked(item.decode(), content, vector))
            for item, number, content, vector in zip(found, found, found, found, strict=True)
        ]
        changes += [
            StoredChange(int(number), Declaration(name.decode(), AttributeKind[kind.decode()]))
            for name, number, kind in zip(declared, declared, declared, strict=True)
        ]
        return sorted(changes, key=lambda stored: stored.revision)[:limit]

    async def store_vectors(self, encoded: Sequence[tuple[StoredChange, TextVector]]) -> None:
        """Store text vectors; see ItemChanges."""
        arguments: list[Argument] = []
        for stored, vector in encoded:
            arguments += (stored.item.item_id, stored.revision, vector.key + vector.values)
        await self._store.run("store_vectors", lambda: ((self._order, self._vectors), arguments))

    async def newest(self) -> int:
        """Return the newest revision; see ItemChanges."""
        store = self._store
        return int(await store.execute(lambda: store.client.hget(store.key("store"), "revision")) or 0)

    async def acknowledge(self, revision: int) -> None:
        """Store an acknowledged revision; see ItemChanges."""
        await self._store.run("raise", lambda: ((), ("acknowledged", revision)))


def _packed(change: ItemChange) -> str:
    if change.attributes is None:
        return ""
    return (_PARTIAL if change.partial else "") + json.dumps(dict(change.attributes))


def _unpacked(item_id: str, content: bytes, keyed_vector: bytes) -> ItemChange:
    partial = content.startswith(_PARTIAL.encode())
    attributes = json.loads(content[len(_PARTIAL) if partial else 0 :]) if content else None
    key, values = keyed_vector[:_KEY_BYTES], keyed_vector[_KEY_BYTES:]
    return ItemChange(item_id, attributes, TextVector(key, values) if keyed_vector else None, partial)


def _kinds(names: Sequence[bytes], kinds: Sequence[bytes]) -> dict[str, AttributeKind]:
    pairs = zip(names, kinds, strict=True)
    return {name.decode(): AttributeKind[kind.decode()] for name, kind in pairs}
