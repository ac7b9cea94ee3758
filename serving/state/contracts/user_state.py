"""What is remembered about users: the contract between the service and a store of events.

The embedded store is `serving.state.sqlite.users.SqliteUserState`, the one that several machines can share
`serving.state.redis.users.RedisUserState`; `test_state_contract.py`, `test_feed_contract.py` and
`test_import_contract.py` in `tests/serving/` run over both.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from ranking.live.recorded_events import RecordedEvent

MICROS: Final = 1_000_000
"""Microseconds per second."""
IMPORTED: Final = "import:"
"""Prefix of event ids made by imports; the service's begin with `client:` or `content:`."""
IMPRESSION: Final = "impression"
"""The kind of events that say what was shown."""


class StateUnavailableError(Exception):
    """The store cannot be read or written at the moment."""


class Outcome(Enum):
    """What became of one event."""

    new = "new"
    duplicate = "duplicate"
    user_deleted = "user_deleted"


@dataclass(frozen=True)
class Exposure:
    """The list in which a shopper saw an item, as far as the sender of an event told; kept for training."""

    request_id: str | None = None
    list_position: int | None = None
    """Place in the list, from 1, counted over its pages."""
    surface: str | None = None
    model_version: str | None = None
    device: str | None = None
    hour: int | None = None
    """The shopper's hour of the day, 0 to 23."""


NOT_SHOWN: Final = Exposure()


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
    shown: Exposure = NOT_SHOWN
    """The list that the event came from."""


class PastEvent(NamedTuple):
    """One stored event of a user; a tuple, because a list is made from some dozens."""

    item_id: str
    kind: str
    time_us: int


@dataclass(frozen=True)
class StoredEvent:
    """One stored event with everything that is kept of it."""

    user_id: str
    item_id: str
    kind: str
    time_us: int
    event_id: str
    shown: Exposure = NOT_SHOWN

    @property
    def recorded(self) -> bool:
        """Whether it came by RecordEvents, not by an import."""
        return not self.event_id.startswith(IMPORTED)


@dataclass(frozen=True)
class Snapshot:
    """What one request has to know of the store, as it was at one moment."""

    events: list[PastEvent]
    """The user's latest events, oldest first."""
    deleted_items: list[str]
    """Items whose newest change is their deletion, and which the caller does not know of yet."""
    acknowledged: int
    """Revision of the item changes that some server has acknowledged; answers must reflect it."""


@dataclass(frozen=True)
class FeedPage:
    """Some recorded events in the order of their arrival."""

    events: list[RecordedEvent]
    position: int
    """Where the next page begins; that of the page before where there was nothing more to read."""


@dataclass(frozen=True)
class StateStats:
    """Size and freshness of a store."""

    users: int
    """Users with at least one event."""
    events: int
    last_record_us: int | None
    """Arrival of the last new event as far as the store knows, microseconds since 1970; a store that
    forgets it when it is closed knows only of events since it was opened."""


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
            QueueFullError: too much work waits.
            TimeoutError: the deadline passed.
            StateUnavailableError: the store failed.
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
            QueueFullError: too much work waits.
            TimeoutError: the deadline passed.
            StateUnavailableError: the store failed.
        """

    async def snapshot(
        self,
        user_id: str,
        limit: int,
        applied: int,
        before_us: int | None = None,
        deadline: float | None = None,
        impressions: bool = True,
    ) -> Snapshot:
        """Return a user's latest events together with what has become of the items, in one round trip.

        Args:
            user_id: whose events; empty for nobody.
            limit: most events.
            applied: last revision of the item changes that the caller knows of.
            before_us: only events strictly before this time.
            deadline: event loop time after which nobody waits for the answer.
            impressions: as in `history`.

        Raises:
            QueueFullError: too much work waits.
            TimeoutError: the deadline passed.
            StateUnavailableError: the store failed.
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
            QueueFullError: too much work waits.
            TimeoutError: the deadline passed.
            StateUnavailableError: the store failed.
        """

    async def delete_user(self, user_id: str) -> int:
        """Erase a user's events and keep imports from bringing them back; return how many there were.

        Raises:
            StateUnavailableError: the store failed, or its files still hold bytes of the erased events.
        """

    async def deletions(self) -> int:
        """Return a number that grows with every deletion of a user, by whichever server.

        Raises:
            StateUnavailableError: the store failed.
        """

    async def deleted_among(self, user_ids: Sequence[str]) -> set[str]:
        """Return those of some users that have been deleted; raises as `deletions` does."""

    async def import_histories(self, path: Path) -> ImportResult:
        """Store the events of a histories file, once per content, skipping deleted users and known events.

        Raises:
            InputError: the file is not a histories table.
        """

    async def recorded_since(self, position: int, limit: int, after_us: int) -> FeedPage:
        """Return what `record` has stored, by whichever server, in the order of arrival.

        Imported events and impressions are not among it, and neither is what belonged to deleted users. A
        store may forget the oldest events, see its settings.

        Args:
            position: of the page before; 0 begins with the oldest event.
            limit: most events to look at; a page may have fewer, or none, and still not be the last one.
            after_us: only events that happened after this time, microseconds since 1970.

        Raises:
            QueueFullError: too much work waits.
            StateUnavailableError: the store failed.
        """

    async def stats(self) -> StateStats:
        """Return size and freshness; what was last known where the store cannot be read."""

    def stored(self, imported: bool) -> AsyncIterator[list[StoredEvent]]:
        """Yield all stored events in pieces of bounded size, user by user, each user's in order of time.

        What was there at the beginning and is not erased meanwhile is among them, once.

        Args:
            imported: whether events that imports brought are among them.

        Raises:
            StateUnavailableError: the store failed.
        """


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
