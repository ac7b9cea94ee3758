"""User state in SQLite: the embedded store of one machine."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import polars as pl

from ranking.live.recorded_events import MAX_PRECEDING, Interaction, RecordedEvent
from serving.state.contracts.user_state import (
    MICROS,
    Exposure,
    FeedPage,
    ImportResult,
    NewEvent,
    Outcome,
    PastEvent,
    Snapshot,
    StateStats,
    StateUnavailableError,
    StoredEvent,
)
from serving.state.copies import erasure_name
from serving.state.histories import file_sha256
from serving.state.histories_reader import event_slices
from serving.state.sqlite.file import SqliteFile, one
from serving.state.sqlite.items import ACKNOWLEDGED, DELETED_SINCE, revision_of

_IMPORT_SLICE: Final = 5_000
"""Rows per import transaction: it delays recorded events by some tens of milliseconds."""


class SqliteUserState:
    """Implements `contracts.user_state.UserState`; create and use it inside a running event loop."""

    def __init__(self, file: SqliteFile) -> None:
        """Use an open file, which this object does not close.

        Raises:
            StateUnavailableError: it is damaged.
        """
        self._file = file
        try:
            self._salt: bytes = one(file.writer, "SELECT value FROM settings WHERE name = 'salt'")
            users, events = (one(file.writer, f"SELECT count(*) FROM {name}") for name in ("users", "events"))
        except (sqlite3.Error, TypeError) as error:  # TypeError: the salt is not there
            raise StateUnavailableError(f"{file.path}: reading user state failed ({error})") from error
        self._sizes = _Sizes(users, events)
        self._last_position = 0
        self._last_record_us: int | None = None

    async def record(self, events: Sequence[NewEvent], deadline: float | None = None) -> list[Outcome]:
        """Store a batch; see UserState."""
        return await self._file.write(lambda db: self._record(db, events), deadline)

    async def history(
        self,
        user_id: str,
        limit: int,
        before_us: int | None = None,
        deadline: float | None = None,
        impressions: bool = True,
    ) -> list[PastEvent]:
        """Return a user's latest events, oldest first; see UserState."""
        return await self._file.read(
            lambda db: _history(db, user_id, limit, before_us, impressions), deadline
        )

    async def snapshot(
        self,
        user_id: str,
        limit: int,
        applied: int,
        before_us: int | None = None,
        deadline: float | None = None,
        impressions: bool = True,
    ) -> Snapshot:
        """Return a user's latest events and the state of item changes; see UserState."""

        def read(db: sqlite3.Connection) -> Snapshot:
            query = _SNAPSHOT if impressions else _SNAPSHOT_OF_INTERACTIONS
            parameters = (user_id, _LATEST if before_us is None else before_us, limit, applied)
            events, deleted, acknowledged = db.execute(query, parameters).fetchone()
            return Snapshot(_past_events(events), json.loads(deleted), revision_of(acknowledged))

        return await self._file.read(read, deadline)

    async def users(self, after: str, limit: int, deadline: float | None = None) -> list[str]:
        """Return the users after an id, in order of the ids; see UserState."""
        query = "SELECT user_id FROM users WHERE user_id > ? ORDER BY user_id LIMIT ?"
        return await self._file.read(
            lambda db: [user for (user,) in db.execute(query, (after, limit)).fetchall()], deadline
        )

    async def delete_user(self, user_id: str) -> int:
        """Erase a user; see UserState. The bytes are overwritten in the file, and its log is truncated."""
        deleted = await self._file.write(lambda db: self._delete(db, user_id))
        if not self._file.log_is_empty:
            raise StateUnavailableError(
                "the user is erased, but a long read keeps the log from being emptied"
            )
        return deleted

    async def deletions(self) -> int:
        """Return a number that increases with every deletion; see UserState."""
        query = "SELECT coalesce(max(deleted_us), 0) FROM deleted_users"
        return await self._file.read(lambda db: int(one(db, query)))

    async def deleted_among(self, user_ids: Sequence[str]) -> set[str]:
        """Return those that have been deleted; see UserState."""
        return await self._file.read(
            lambda db: {user for user in user_ids if self._deleted_us(db, user) >= 0}
        )

    def erasure_name(self, user_id: str) -> str:
        """Return the hash of a user in this store; see UserState."""
        return erasure_name(user_id, self._salt)

    async def import_histories(self, path: Path) -> ImportResult:
        """Store the events of a histories file; see UserState."""
        return await self._import(path)

    async def recorded_since(self, position: int, limit: int, after_us: int) -> FeedPage:
        """Return recorded events in the order of arrival; see UserState."""
        # Event times are at most `_AHEAD_US` after arrival, so earlier arrivals can be skipped.
        begin = max(position, (after_us - _AHEAD_US) * _NANOS_PER_MICRO)
        return await self._file.read(lambda db: _feed(db, position, begin, limit, after_us))

    async def stats(self) -> StateStats:
        """Return size and freshness."""
        return StateStats(self._sizes.users, self._sizes.events, self._last_record_us)

    async def stored(self, imported: bool) -> AsyncIterator[list[StoredEvent]]:
        """Yield all stored events, a few thousand at a time; see UserState."""
        query = _STORED.format(recorded="" if imported else "AND recorded = 1")
        after: tuple[object, ...] = (-1, 0, 0, "")
        while rows := await self._file.read(partial(_rows, query=query, after=after)):
            after = rows[-1][:4]
            yield [
                StoredEvent(user, item, kind, time_us, event_id, Exposure(*shown))
                for _, time_us, _, event_id, user, item, kind, *shown in rows
            ]

    async def stored_of(self, user_id: str) -> AsyncIterator[list[StoredEvent]]:
        """Yield all stored events of one user, a few thousand at a time; see UserState."""
        after: tuple[object, ...] = (user_id, -(2**63), 0, "")
        while rows := await self._file.read(partial(_rows, query=_STORED_OF, after=after)):
            after = (user_id, *rows[-1][:3])
            yield [
                StoredEvent(user_id, item, kind, time_us, event_id, Exposure(*shown))
                for time_us, _, event_id, item, kind, *shown in rows
            ]

    def _record(self, db: sqlite3.Connection, events: Sequence[NewEvent]) -> list[Outcome]:
        hashes = {user: self._hash(user) for user in {event.user_id for event in events}}
        outcomes, change = [], _Sizes()
        # Other processes on this file assign positions, too; those of the feed must be monotonic.
        self._last_position = max(self._last_position, one(db, _NEWEST_POSITION) or 0)
        for event in events:
            self._last_position = max(self._last_position + 1, time.time_ns())
            row = (
                event.user_id,
                event.event_id,
                event.time_us,
                self._last_position,
                event.item_id,
                event.kind,
                hashes[event.user_id],
                *_origin(event.exposure),
            )
            # The common case: a known user, a new event.
            added = db.execute(_ADD_EVENT, row).rowcount
            if not added:
                if event.time_us <= self._deleted_us(db, event.user_id):
                    outcomes.append(Outcome.user_deleted)
                    continue
                change.users += db.execute(_ADD_USER, (event.user_id,)).rowcount
                added = db.execute(_ADD_EVENT, row).rowcount
            change.events += added
            outcomes.append(Outcome.new if added else Outcome.duplicate)
        self._file.after_commit(lambda: self._count(change, recorded=change.events > 0))
        return outcomes

    def _count(self, change: _Sizes, recorded: bool = False) -> None:
        """Update the sizes after the commit of a change."""
        self._sizes.users += change.users
        self._sizes.events += change.events
        if recorded:
            self._last_record_us = time.time_ns() // 1000

    def _delete(self, db: sqlite3.Connection, user_id: str) -> int:
        # No earlier event may return, even if its time is in the future or the clock has been set back.
        newest = one(db, f"SELECT max(time_us) FROM events WHERE user = {_USER}", user_id) or 0
        until_us = max(time.time_ns() // 1000, newest, self._deleted_us(db, user_id))
        events = db.execute(f"DELETE FROM events WHERE user = {_USER}", (user_id,)).rowcount
        users = db.execute("DELETE FROM users WHERE user_id = ?", (user_id,)).rowcount
        db.execute(
            "INSERT OR REPLACE INTO deleted_users VALUES (?, ?)",
            (self._hash(user_id), until_us),
        )
        self._file.after_commit(lambda: self._count(_Sizes(-users, -events)))
        self._file.after_commit(self._file.empty_log)
        return events

    def _deleted_us(self, db: sqlite3.Connection, user_id: str) -> int:
        """Return the time until which a deleted user's events are refused; -1 for other users."""
        row = db.execute(
            "SELECT deleted_us FROM deleted_users WHERE user_hash = ?", (self._hash(user_id),)
        ).fetchone()
        return -1 if row is None else int(row[0])

    def _hash(self, user_id: str) -> bytes:
        return bytes.fromhex(self.erasure_name(user_id))

    async def _import(self, path: Path) -> ImportResult:
        """Import slice by slice, so that events can be recorded in between; an interrupted import repeats."""
        sha256 = await asyncio.to_thread(file_sha256, path)
        known = "SELECT count(*) FROM imports WHERE sha256 = ?"
        if await self._file.read(lambda db: db.execute(known, (sha256,)).fetchone()[0]):
            return ImportResult(already_imported=True, rows=0, new=0)
        rows = new = 0
        async with aclosing(event_slices(path, _IMPORT_SLICE)) as slices:
            async for part in slices:
                taken, added = await self._file.write(partial(self._import_slice, frame=part))
                rows, new = rows + taken, new + added
        done = (sha256, rows, time.time_ns() // 1000)
        await self._file.write(lambda db: db.execute("INSERT OR IGNORE INTO imports VALUES (?, ?, ?)", done))
        return ImportResult(already_imported=False, rows=rows, new=new)

    def _import_slice(self, db: sqlite3.Connection, frame: pl.DataFrame) -> tuple[int, int]:
        """Store some rows; return how many are of users that are not deleted, and how many were new."""
        users = frame["user_id"].unique(maintain_order=True).to_list()
        if one(db, "SELECT count(*) FROM deleted_users"):
            deleted = [user for user in users if self._deleted_us(db, user) >= 0]
            frame = frame.filter(~pl.col("user_id").is_in(deleted))
            users = frame["user_id"].unique(maintain_order=True).to_list()
        change = _Sizes(db.executemany(_ADD_USER, [(user,) for user in users]).rowcount)
        change.events += db.executemany(_IMPORT_EVENT, frame.iter_rows()).rowcount
        self._file.after_commit(lambda: self._count(change))
        return frame.height, change.events


_origin: Final = attrgetter(*(field.name for field in fields(Exposure)))
"""The exposure of an event, in the order of the columns."""
_PAGE: Final = 5_000
"""Events per read of `stored`."""
_USER: Final = "(SELECT id FROM users WHERE user_id = ?1)"
_ADD_USER: Final = "INSERT INTO users (user_id) VALUES (?) ON CONFLICT DO NOTHING"
_ADD_EVENT: Final = """
INSERT INTO events (user, event_id, time_us, position, item_id, kind, recorded,
                    request_id, list_position, surface, model_version, device, hour, propensity, experiments)
SELECT id, ?2, ?3, ?4, ?5, ?6, 1, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15 FROM users WHERE user_id = ?1
AND NOT EXISTS (SELECT 1 FROM deleted_users WHERE user_hash = ?7 AND deleted_us >= ?3)
ON CONFLICT DO NOTHING
"""
"""Inserts an event of a known user who was not deleted after it."""
# A file made from recorded events contains them again, to the second: those are duplicates.
_IMPORT_EVENT: Final = f"""
INSERT INTO events (user, event_id, time_us, position, item_id, kind, recorded)
SELECT users.id, ?2, ?3, ?4, ?5, ?6, 0 FROM users WHERE users.user_id = ?1 AND NOT EXISTS (
  SELECT 1 FROM events AS known WHERE known.recorded = 1 AND known.user = users.id
  AND known.time_us BETWEEN ?3 AND ?3 + {MICROS - 1} AND known.item_id = ?5 AND known.kind = ?6
) ON CONFLICT DO NOTHING
"""
# In one row: the module `sqlite3` releases and reacquires the GIL for every row, for which other threads of a
# busy server compete.
_HISTORY: Final = """
SELECT json_group_array(json_array(item_id, kind, time_us)) FROM (
  SELECT item_id, kind, time_us FROM events
  WHERE user = (SELECT id FROM users WHERE user_id = ?1) AND time_us < ?2 {kinds}
  ORDER BY time_us DESC, position DESC LIMIT ?3
)
"""
_ALL_KINDS: Final = _HISTORY.format(kinds="")
# The same expression as of the partial index, or SQLite would not use it.
_INTERACTIONS_ONLY: Final = _HISTORY.format(kinds="AND kind <> 'impression'")
_BESIDE: Final = f"({DELETED_SINCE.format(revision='?4')}), ({ACKNOWLEDGED})"
_SNAPSHOT: Final = f"SELECT ({_ALL_KINDS}), {_BESIDE}"
_SNAPSHOT_OF_INTERACTIONS: Final = f"SELECT ({_INTERACTIONS_ONLY}), {_BESIDE}"
_BY_ARRIVAL: Final = "FROM events INDEXED BY deeds_by_arrival WHERE recorded = 1 AND kind <> 'impression'"
_NEWEST_POSITION: Final = f"SELECT max(position) {_BY_ARRIVAL}"
_AHEAD_US: Final = 86_400 * MICROS
"""How far an event's time may be after its arrival; see `max_future_seconds` of a server."""
_NANOS_PER_MICRO: Final = 1000
_FEED: Final = f"""
SELECT json_group_array(json_array(position, time_us, item_id, kind, json(CASE WHEN time_us > ?3 THEN (
  SELECT json_group_array(json_array(item_id, kind)) FROM (
    SELECT item_id, kind FROM events AS earlier
    WHERE earlier.user = page.user AND earlier.kind <> 'impression'
    AND (earlier.time_us, earlier.position) < (page.time_us, page.position)
    ORDER BY earlier.time_us DESC, earlier.position DESC LIMIT {MAX_PRECEDING}
  )
) END))) FROM (
  SELECT position, time_us, user, item_id, kind {_BY_ARRIVAL} AND position > ?1 ORDER BY position LIMIT ?2
) AS page
"""
_LATEST: Final = 2**63 - 1
"""Microseconds since 1970; later than any event."""


# Keyset pagination by the index: no read is so long that the log cannot be emptied.
_STORED: Final = f"""
SELECT user, time_us, position, event_id, user_id, item_id, kind,
       request_id, list_position, surface, model_version, device, hour, propensity, experiments
FROM events JOIN users ON users.id = events.user
WHERE (user, time_us, position, event_id) > (?, ?, ?, ?) {{recorded}}
ORDER BY user, time_us, position, event_id LIMIT {_PAGE}
"""
_STORED_OF: Final = f"""
SELECT time_us, position, event_id, item_id, kind,
       request_id, list_position, surface, model_version, device, hour, propensity, experiments
FROM events WHERE user = {_USER} AND (time_us, position, event_id) > (?2, ?3, ?4)
ORDER BY time_us, position, event_id LIMIT {_PAGE}
"""


@dataclass
class _Sizes:
    """Cached row counts: counting millions of rows would delay reads."""

    users: int = 0
    events: int = 0


def _history(
    db: sqlite3.Connection, user_id: str, limit: int, before_us: int | None, impressions: bool
) -> list[PastEvent]:
    parameters = (user_id, _LATEST if before_us is None else before_us, limit)
    return _past_events(one(db, _ALL_KINDS if impressions else _INTERACTIONS_ONLY, *parameters))


def _feed(db: sqlite3.Connection, position: int, begin: int, limit: int, after_us: int) -> FeedPage:
    """Return a page of the feed after `begin`, which is not before `position`."""
    found = json.loads(one(db, _FEED, begin, limit, after_us))
    events = [
        RecordedEvent(item, kind, time_us, tuple(map(Interaction._make, before)))
        for _, time_us, item, kind, before in found
        if before is not None
    ]
    return FeedPage(events, found[-1][0] if found else position)


def _past_events(newest_first: str) -> list[PastEvent]:
    events = list(map(PastEvent._make, json.loads(newest_first)))
    events.reverse()
    return events


def _rows(db: sqlite3.Connection, query: str, after: tuple[object, ...]) -> list[Any]:
    return db.execute(query, after).fetchall()
