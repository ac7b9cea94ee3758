"""What is remembered about changed items: the contract between the service and a store of item changes.

The store keeps the newest content of every item that was ever changed, deleted ones included, because a later
bundle may bring a deleted item back. It knows nothing about models: attributes are kept as they came, and
every model takes from them what it understands. Of an item of which only some attributes were changed, only
these are kept: the rest is the model's. Attributes that were declared are changes, too, and come in the same
order as those of items, so that nobody meets a value before its attribute. What an encoder has made of an
item's text may be kept beside it: other servers, later starts and later models with the same encoder need not
do that again.
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
    """Its place in the order of all changes: above 0 and growing, not necessarily by 1."""
    change: Change

    @property
    def item(self) -> ItemChange:
        """The change of an item that it is known to be."""
        assert isinstance(self.change, ItemChange)
        return self.change


@dataclass(frozen=True)
class Replaced:
    """What became of changes that were made to items as they were known."""

    revision: int
    """Of the last one that was stored, as `store` returns it; 0 where none was."""
    others: list[int]
    """Positions of the changes that were not stored, because their items had been changed meanwhile."""


@dataclass(frozen=True)
class Declared:
    """What became of declared attributes."""

    revision: int
    """Everybody who has seen this revision knows them; 0 where they were refused."""
    others: Mapping[str, AttributeKind]
    """Those that are declared with another type already, and that type; with any of them none is stored."""


class ItemChanges(Protocol):
    """A durable store of item changes; every method may be called from the event loop and never blocks it."""

    async def store(self, changes: Sequence[ItemChange], deadline: float | None = None) -> int:
        """Store changes, all or nothing; durable when this returns.

        Args:
            changes: in order; the last one of an item counts.
            deadline: event loop time after which they need not be stored any more.

        Returns:
            The revision of the last one. Everybody who has seen this revision has seen them all.

        Raises:
            QueueFull: too much work waits.
            TimeoutError: the deadline passed.
            StateUnavailable: the store failed.
        """

    async def contents(
        self, item_ids: Sequence[str], deadline: float | None = None
    ) -> list[tuple[int, ItemChange | None]]:
        """Return revision and content of the newest change of each item; 0 and None where there is none.

        Raises as `store` does.
        """

    async def replace(
        self, changes: Sequence[ItemChange], known: Sequence[int], deadline: float | None = None
    ) -> Replaced:
        """Store changes of items that have not been changed since they were read; durable when this returns.

        Args:
            changes: of an item each.
            known: the revision of each item's newest change as `contents` gave it.
            deadline: as of `store`.

        Raises as `store` does.
        """

    async def declare(self, declarations: Sequence[Declaration], deadline: float | None = None) -> Declared:
        """Store attributes, all or nothing; those that are declared already stay where they are.

        Raises as `store` does.
        """

    async def declared(self) -> dict[str, AttributeKind]:
        """Return all declared attributes; raises as `since` does."""

    async def since(self, revision: int, limit: int) -> list[StoredChange]:
        """Return the oldest changes after a revision, in order, at most `limit`; one per item, the newest.

        Raises:
            StateUnavailable: the store failed.
        """

    async def keep(self, encoded: Sequence[tuple[StoredChange, TextVector]]) -> None:
        """Keep what has become of the texts of changes, unless the items have been changed again since.

        Raises:
            QueueFull: too much work waits.
            StateUnavailable: the store failed.
        """

    async def newest(self) -> int:
        """Return the revision of the last change, 0 where there is none; raises as `since` does."""

    async def acknowledge(self, revision: int) -> None:
        """Let every server know that a revision is about to be acknowledged; see `user_state.Snapshot`.

        Raises:
            StateUnavailable: the store failed.
        """
