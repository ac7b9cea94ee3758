"""Contract of stores of item changes.

The store holds the newest content of every item that was ever changed; deleted items as tombstones, because a
later bundle may contain them again. It is independent of models: attributes are stored as sent, and every
model uses those that it knows. Of partially updated items only the changed attributes are stored; the rest
comes from the model. Declarations of attributes are changes in the same order, so that a declaration always
precedes its values. The vector of an item's text may be stored with it: other servers, restarts and models
with the same encoder reuse it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from ranking.catalogue.filter_language import AttributeKind
from ranking.catalogue.live_catalogue import Change, Declaration, ItemChange, TextVector


@dataclass(frozen=True)
class StoredChange:
    """The newest change of an item, or a declared attribute."""

    revision: int
    """Position in the order of all changes: positive and increasing, not necessarily by 1."""
    change: Change

    @property
    def item(self) -> ItemChange:
        """The change, which must be one of an item."""
        assert isinstance(self.change, ItemChange)
        return self.change


@dataclass(frozen=True)
class Replaced:
    """Outcome of `ItemChanges.replace`."""

    revision: int
    """Of the last stored change; 0 where none was."""
    conflicts: list[int]
    """Positions of the changes that were not stored, because their items had changed since they were read."""


@dataclass(frozen=True)
class Declared:
    """Outcome of `ItemChanges.declare`."""

    revision: int
    """Of the last declaration; 0 where they were rejected."""
    conflicts: Mapping[str, AttributeKind]
    """Attributes already declared with another type, and that type; if there are any, nothing is stored."""


class ItemChanges(Protocol):
    """A durable store of item changes; every method may be called from the event loop and never blocks it."""

    async def store(self, changes: Sequence[ItemChange], deadline: float | None = None) -> int:
        """Store changes, all or nothing; durable when this returns.

        Args:
            changes: in order; the last one of an item counts.
            deadline: event loop time after which they need not be stored any more.

        Returns:
            The revision of the last one, which is only visible together with all before it.

        Raises:
            QueueFullError: the store's queue is full.
            TimeoutError: the deadline passed.
            StateUnavailableError: the store failed.
        """

    async def contents(
        self, item_ids: Sequence[str], deadline: float | None = None
    ) -> list[tuple[int, ItemChange | None]]:
        """Return revision and content of each item's newest change, or 0 and None; raises as `store` does."""

    async def replace(
        self, changes: Sequence[ItemChange], known: Sequence[int], deadline: float | None = None
    ) -> Replaced:
        """Store changes of items that have not changed since they were read; durable when this returns.

        Args:
            changes: one per item.
            known: the revision of each item's newest change as read by `contents`.
            deadline: see `store`.

        Raises as `store` does.
        """

    async def declare(self, declarations: Sequence[Declaration], deadline: float | None = None) -> Declared:
        """Store declarations, all or nothing; existing ones keep their revisions; raises as `store` does."""

    async def declared(self) -> dict[str, AttributeKind]:
        """Return all declared attributes; raises as `since` does."""

    async def since(self, revision: int, limit: int) -> list[StoredChange]:
        """Return the oldest changes after a revision, in order, at most `limit`; one per item, the newest.

        Raises:
            StateUnavailableError: the store failed.
        """

    async def store_vectors(self, encoded: Sequence[tuple[StoredChange, TextVector]]) -> None:
        """Store the text vectors of changes, except of items that have changed again since.

        Raises:
            QueueFullError: the store's queue is full.
            StateUnavailableError: the store failed.
        """

    async def newest(self) -> int:
        """Return the revision of the last change, 0 where there is none; raises as `since` does."""

    async def acknowledge(self, revision: int) -> None:
        """Let every server know that a revision is about to be acknowledged; see `user_state.Snapshot`.

        Raises:
            StateUnavailableError: the store failed.
        """
