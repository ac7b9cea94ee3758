"""Contract of stores of user events.

Implemented by `serving.state.sqlite.users.SqliteUserState` for one machine and
`serving.state.redis.users.RedisUserState` for several; `test_state_contract.py`, `test_feed_contract.py` and
`test_import_contract.py` in `tests/serving/` test both.
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
"""Prefix of event ids of imported events; those of recorded events begin with `client:` or `content:`."""
IMPRESSION: Final = "impression"
"""Kind of the events that report a shown item."""


class StateUnavailableError(Exception):
    """The store cannot be read or written at the moment."""


class Outcome(Enum):
    """Outcome of recording one event."""

    new = "new"
    duplicate = "duplicate"
    user_deleted = "user_deleted"


@dataclass(frozen=True)
class Exposure:
    """The list in which a user saw an item, as far as the event says; stored for training."""

    request_id: str | None = None
    list_position: int | None = None
    """Position in the list, from 1, counted over its pages."""
    surface: str | None = None
    model_version: str | None = None
    device: str | None = None
    hour: int | None = None
    """The user's local hour of the day, 0 to 23."""
    propensity: float | None = None
    """Probability that the item was on the page, see `ranking.rerank.slate.SlateItem`."""
    experiments: str | None = None
    """The arms that made the list, `name=arm` of each experiment in the order of the names, joined by `;`."""


NO_EXPOSURE: Final = Exposure()


@dataclass(frozen=True)
class NewEvent:
    """One event to store."""

    user_id: str
    item_id: str
    kind: str
    time_us: int
    """When it happened, microseconds since 1970."""
    event_id: str
    """Unique within the user; see `content_id` for events without one."""
    exposure: Exposure = NO_EXPOSURE
    """The list that the event came from."""


class PastEvent(NamedTuple):
    """One event of a user's history; a tuple for speed: a list reads some dozens."""

    item_id: str
    kind: str
    time_us: int


@dataclass(frozen=True)
class StoredEvent:
    """One stored event with all fields."""

    user_id: str
    item_id: str
    kind: str
    time_us: int
    event_id: str
    exposure: Exposure = NO_EXPOSURE

    @property
    def recorded(self) -> bool:
        """Whether it was recorded by RecordEvents, not imported."""
        return not self.event_id.startswith(IMPORTED)


@dataclass(frozen=True)
class Snapshot:
    """Consistent view of the state for one request."""

    events: list[PastEvent]
    """The user's latest events, oldest first."""
    deleted_items: list[str]
    """Items deleted by changes that the caller has not applied yet."""
    acknowledged: int
    """Last revision of the item changes that any server has acknowledged; responses must reflect it."""


@dataclass(frozen=True)
class FeedPage:
    """A page of recorded events in order of arrival."""

    events: list[RecordedEvent]
    position: int
    """Cursor of the next page; unchanged if there was nothing to read."""


@dataclass(frozen=True)
class StateStats:
    """Size and freshness of a store."""

    users: int
    """Users with at least one event."""
    events: int
    last_record_us: int | None
    """Arrival of the last new event, microseconds since 1970; None if unknown, as after opening SQLite."""


@dataclass(frozen=True)
class ImportResult:
    """Outcome of an import."""

    already_imported: bool
    """Whether the same content had been imported before; then nothing was done."""
    rows: int
    """Rows of the file."""
    new: int
    """Newly stored events."""


class UserState(Protocol):
    """A durable store of events; every method may be called from the event loop and never blocks it."""

    async def record(self, events: Sequence[NewEvent], deadline: float | None = None) -> list[Outcome]:
        """Store a batch, all or nothing, idempotently by (user, event id); durable when this returns.

        Args:
            events: in the order in which they happened.
            deadline: event loop time after which the batch need not be stored any more.

        Raises:
            QueueFullError: the store's queue is full.
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
            user_id: the user.
            limit: most events.
            before_us: only events strictly before this time.
            deadline: event loop time.
            impressions: whether to include impressions, which are many: where the model does not know the
                kind they must not use up the limit.

        Raises:
            QueueFullError: the store's queue is full.
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
        """Return a user's latest events together with the state of item changes, in one round trip.

        Args:
            user_id: the user; empty for no events.
            limit: most events.
            applied: last revision of the item changes that the caller has applied.
            before_us: only events strictly before this time.
            deadline: event loop time.
            impressions: see `history`.

        Raises:
            QueueFullError: the store's queue is full.
            TimeoutError: the deadline passed.
            StateUnavailableError: the store failed.
        """

    async def users(self, after: str, limit: int, deadline: float | None = None) -> list[str]:
        """Return the users with ids greater than `after` (all ids are greater than ""), in order of the ids.

        Ids are ordered by their UTF-8 bytes, so that a listing can continue after any id, whatever was added
        or erased in between.

        Args:
            after: last id of the page before.
            limit: most users.
            deadline: event loop time.

        Raises:
            QueueFullError: the store's queue is full.
            TimeoutError: the deadline passed.
            StateUnavailableError: the store failed.
        """

    async def delete_user(self, user_id: str) -> int:
        """Erase a user's events, also from future imports, and return their number.

        Raises:
            StateUnavailableError: the store failed, or its files still hold bytes of the erased events.
        """

    async def deletions(self) -> int:
        """Return a number that increases with every deletion of a user through any server.

        Raises:
            StateUnavailableError: the store failed.
        """

    async def deleted_among(self, user_ids: Sequence[str]) -> set[str]:
        """Return which of these users have been deleted; raises as `deletions` does."""

    def stored_of(self, user_id: str) -> AsyncIterator[list[StoredEvent]]:
        """Yield all stored events of one user in chunks of bounded size, in order of time.

        Raises:
            StateUnavailableError: the store failed.
        """

    def erasure_name(self, user_id: str) -> str:
        """Return the hash by which this store knows a deleted user, in hex; see `serving.state.copies`."""

    async def import_histories(self, path: Path) -> ImportResult:
        """Store the events of a histories file, once per content, skipping deleted users and known events.

        Raises:
            InputError: the file is not a histories table.
        """

    async def recorded_since(self, position: int, limit: int, after_us: int) -> FeedPage:
        """Return recorded events of all servers in order of arrival.

        It excludes imported events, impressions and events of deleted users. A store may drop the oldest
        events, see its settings.

        Args:
            position: cursor of the page before; 0 begins with the oldest event.
            limit: most events to scan; a page may have fewer, or none, and still not be the last one.
            after_us: only events that happened after this time, microseconds since 1970.

        Raises:
            QueueFullError: the store's queue is full.
            StateUnavailableError: the store failed.
        """

    async def stats(self) -> StateStats:
        """Return size and freshness; the last known ones if the store cannot be read."""

    def stored(self, imported: bool) -> AsyncIterator[list[StoredEvent]]:
        """Yield all stored events in chunks of bounded size, user by user, each user's in order of time.

        Events that exist at the beginning and are not erased meanwhile are yielded exactly once.

        Args:
            imported: whether to include imported events.

        Raises:
            StateUnavailableError: the store failed.
        """


def content_id(item_id: str, kind: str, occasion: int | str) -> str:
    """Return an idempotency key for an event without id, made from its content.

    Args:
        item_id: of the event.
        kind: of the event.
        occasion: its time in nanoseconds, or list and position of an impression.
    """
    content = f"{item_id}\x1f{kind}\x1f{occasion}".encode()
    return "content:" + hashlib.blake2b(content, digest_size=12).hexdigest()


def log_name(user_id: str) -> str:
    """Return a user's name in logs: eight hex digits of a hash, never the id itself."""
    return hashlib.sha256(user_id.encode()).hexdigest()[:8]
