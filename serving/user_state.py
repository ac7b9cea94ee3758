"""What is remembered about users: the contract between the service and a store of events.

The embedded store is `serving.sqlite_state.SqliteUserState`; another one only has to fulfil this Protocol.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, Protocol

MICROS: Final = 1_000_000
"""Microseconds per second."""


class StateUnavailable(Exception):
    """The store cannot be read or written at the moment."""


class Outcome(Enum):
    """What became of one event."""

    new = "new"
    duplicate = "duplicate"
    user_deleted = "user_deleted"


@dataclass(frozen=True)
class Shown:
    """The list in which a shopper saw an item, as far as the sender of an event told; kept for training."""

    request_id: str | None = None
    list_position: int | None = None
    """Place in the list, from 1, counted over its pages."""
    surface: str | None = None
    model_version: str | None = None
    device: str | None = None
    hour: int | None = None
    """The shopper's hour of the day, 0 to 23."""


NOT_SHOWN: Final = Shown()


@dataclass(frozen=True)
class NewEvent:
    """One event to store."""

    user_id: str
    item_id: str
    kind: str
    time_us: int
    """When it happened, microseconds since 1970."""
    event_id: str
    """Unique within the user; see `content_id` for events that came without one."""
    shown: Shown = NOT_SHOWN
    """The list that the event came from."""


@dataclass(frozen=True)
class PastEvent:
    """One stored event of a user."""

    item_id: str
    kind: str
    time_us: int


@dataclass(frozen=True)
class StateStats:
    """Size and freshness of a store."""

    users: int
    """Users with at least one event."""
    events: int
    last_record_us: int | None
    """Arrival of the last new event since the store was opened, microseconds since 1970."""


@dataclass(frozen=True)
class ImportResult:
    """What an import did."""

    already_imported: bool
    """The same file had been imported before; nothing was done."""
    rows: int
    """Rows of the file."""
    new: int
    """Events that were stored."""


class UserState(Protocol):
    """A durable store of events; every method may be called from the event loop and never blocks it."""

    async def record(self, events: Sequence[NewEvent], deadline: float | None = None) -> list[Outcome]:
        """Store a batch, all or nothing, idempotently by (user, event id); durable when this returns.

        Args:
            events: in the order in which they happened.
            deadline: event loop time after which the batch need not be stored any more.

        Raises:
            QueueFull: too much work waits.
            TimeoutError: the deadline passed.
            StateUnavailable: the store failed.
        """

    async def history(
        self,
        user_id: str,
        limit: int,
        before_us: int | None = None,
        deadline: float | None = None,
        impressions: bool = True,
    ) -> list[PastEvent]:
        """Return a user's latest events, oldest first; empty for an unknown user.

        Args:
            user_id: whose.
            limit: most events.
            before_us: only events strictly before this time.
            deadline: event loop time after which nobody waits for the answer.
            impressions: whether events of the kind `impression` are among them; there are many, and where the
                model does not know the kind they must not use up the limit.

        Raises:
            QueueFull: too much work waits.
            TimeoutError: the deadline passed.
            StateUnavailable: the store failed.
        """

    async def users(self, after: str, limit: int, deadline: float | None = None) -> list[str]:
        """Return the users with ids greater than `after` (all ids are greater than ""), in order of the ids.

        The order is that of the UTF-8 bytes, so that a listing goes on at the last id that it gave, whatever
        was added or erased in between.

        Args:
            after: last id of the page before.
            limit: most users.
            deadline: event loop time after which nobody waits for the answer.

        Raises:
            QueueFull: too much work waits.
            TimeoutError: the deadline passed.
            StateUnavailable: the store failed.
        """

    async def delete_user(self, user_id: str) -> int:
        """Erase a user's events and keep imports from bringing them back; return how many there were."""

    async def import_histories(self, path: Path) -> ImportResult:
        """Store the events of a histories file, once per content, skipping deleted users and known events.

        Raises:
            InputError: the file is not a histories table.
        """

    async def item_counts(self) -> dict[str, int]:
        """Return how many stored events each item has, impressions left out."""

    async def stats(self) -> StateStats:
        """Return size and freshness."""


def content_id(item_id: str, kind: str, occasion: int | str) -> str:
    """Name an event that came without id by its content, so that sending it again stores it once.

    Args:
        item_id: with which item.
        kind: what.
        occasion: its time in nanoseconds, or the place of a list.
    """
    content = f"{item_id}\x1f{kind}\x1f{occasion}".encode()
    return "content:" + hashlib.blake2b(content, digest_size=12).hexdigest()


def log_name(user_id: str) -> str:
    """Return what logs call a user: eight hex digits of a hash, never the id itself."""
    return hashlib.sha256(user_id.encode()).hexdigest()[:8]
