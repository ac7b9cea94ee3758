"""What is remembered about changed items: the contract between the service and a store of item changes.

The store keeps the newest content of every item that was ever changed, deleted ones included, because a later
bundle may bring a deleted item back. It knows nothing about models: attributes are kept as they came, and
every model takes from them what it understands. What an encoder has made of an item's text may be kept beside
it: other servers, later starts and later models with the same encoder need not do that again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ranking.live_catalogue import ItemChange, TextVector


@dataclass(frozen=True)
class StoredChange:
    """The newest change of an item."""

    revision: int
    """Its place in the order of all changes: above 0 and growing, not necessarily by 1."""
    change: ItemChange


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
