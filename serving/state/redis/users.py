"""User state in Redis: the store of several servers.

A user has a sorted set of interactions, one of impressions, and a hash of the event ids that are known; their
keys hold a keyed hash of the user id, which is stored only in the set of all users. Beside them one
sorted set, the feed, has what was recorded in the order of arrival. It names no user; an erased user's events
are found in it by the arrival that is part of each interaction. (A stream would keep deleted entries' bytes.)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final

from ranking.live.recorded_events import MAX_PRECEDING
from serving.state.contracts.user_state import (
    MICROS,
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
from serving.state.redis.erasure import RedisFiles
from serving.state.redis.events import merge, pack_new, unpack, unpack_feed
from serving.state.redis.histories_import import import_file
from serving.state.redis.store import Argument, Call, RedisStore, as_text

_LOG = logging.getLogger(__name__)
_OUTCOMES: Final = {"n": Outcome.new, "k": Outcome.duplicate, "d": Outcome.user_deleted}
_PAGE: Final = 5_000
"""Events per chunk of `stored_of`."""
_USERS_PER_PAGE: Final = 16
"""Users whose events `stored` reads together."""
_HASHES_PER_QUERY: Final = 5_000
_AHEAD_US: Final = 86_400 * MICROS
"""How far an event's time may be after its arrival; see `max_future_seconds` of a server."""
_STATS_SECONDS: Final = 0.5
"""Timeout of `stats`."""


class RedisUserState:
    """Implements `contracts.user_state.UserState`; create and use it inside a running event loop."""

    def __init__(self, store: RedisStore) -> None:
        """Use an open store, which this object does not close."""
        self._store = store
        self._files = RedisFiles(store)
        self._users = store.key("users")
        self._feed = store.key("feed")
        self._deleted_users = store.key("deleted-users")
        self._deleted_items = store.key("deleted-items")
        self._stats = StateStats(0, 0, None)

    async def record(self, events: Sequence[NewEvent], deadline: float | None = None) -> list[Outcome]:
        """Store a batch; see UserState."""
        by_user: dict[str, list[int]] = {}
        for position, event in enumerate(events):
            by_user.setdefault(event.user_id, []).append(position)

        def call() -> Call:
            arguments: list[Argument] = [self._store.max_user_events, len(by_user)]
            arguments += (self._store.max_feed_events, MAX_PRECEDING)
            for user, positions in by_user.items():
                arguments += (user, self._hash(user), len(positions))
                for event in (events[position] for position in positions):
                    arguments += (event.time_us, event.event_id, event.item_id, event.kind, pack_new(event))
            return self._batch_keys(by_user), arguments

        letters = (await self._store.run("record", call, deadline)).decode()
        positions = [position for of_user in by_user.values() for position in of_user]
        outcomes = dict(zip(positions, letters, strict=True))
        return [_OUTCOMES[outcomes[position]] for position in range(len(events))]

    async def history(
        self,
        user_id: str,
        limit: int,
        before_us: int | None = None,
        deadline: float | None = None,
        impressions: bool = True,
    ) -> list[PastEvent]:
        """Return a user's latest events, oldest first; see UserState."""
        return (await self.snapshot(user_id, limit, 2**62, before_us, deadline, impressions)).events

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

        def call() -> Call:
            keys = [self._deleted_items, *self._user_keys(user_id)[:2]] if user_id else [self._deleted_items]
            before = "+inf" if before_us is None else f"({before_us}"
            return keys, (applied, limit, before, int(impressions))

        acknowledged, deleted, interactions, shown = await self._store.run("snapshot", call, deadline)
        return Snapshot(
            merge(interactions, shown, limit), [item.decode() for item in deleted], int(acknowledged)
        )

    async def users(self, after: str, limit: int, deadline: float | None = None) -> list[str]:
        """Return the users after an id, in order of the ids; see UserState."""
        first = b"(" + after.encode() if after else b"-"
        found = await self._store.execute(
            lambda: self._store.client.zrangebylex(self._users, first, b"+", start=0, num=limit), deadline
        )
        return [as_text(user) for user in found]

    async def delete_user(self, user_id: str) -> int:
        """Erase a user; see UserState. Redis's files are rewritten, so that the bytes are gone."""

        def call() -> Call:
            keys = (self._users, self._feed, self._deleted_users, *self._user_keys(user_id))
            return keys, (user_id, self._hash(user_id), time.time_ns() // 1000)

        erased, number, may_be_in_files = await self._store.run("delete_user", call)
        if may_be_in_files:
            await self._files.clean(int(number))
        return int(erased)

    async def deletions(self) -> int:
        """Return a number that increases with every deletion; see UserState."""
        store = self._store
        return int(await store.execute(lambda: store.client.hget(store.key("store"), "deletions")) or 0)

    async def deleted_among(self, user_ids: Sequence[str]) -> set[str]:
        """Return those that have been deleted; see UserState."""
        deleted: set[str] = set()
        for start in range(0, len(user_ids), _HASHES_PER_QUERY):
            part = user_ids[start : start + _HASHES_PER_QUERY]
            hashes = [self._hash(user) for user in part]
            found = await self._store.execute(
                lambda hashes=hashes: self._store.client.hmget(self._deleted_users, hashes)  # type: ignore[misc]
            )
            deleted.update(user for user, when in zip(part, found, strict=True) if when is not None)
        return deleted

    def erasure_name(self, user_id: str) -> str:
        """Return the hash of a user in this store; see UserState."""
        return erasure_name(user_id, self._store.salt)

    async def import_histories(self, path: Path) -> ImportResult:
        """Store the events of a histories file; see UserState. One server imports, the others wait."""
        return await import_file(self._store, path, self._batch_keys, self._hash)

    async def recorded_since(self, position: int, limit: int, after_us: int) -> FeedPage:
        """Return recorded events in the order of arrival; see UserState."""
        # Event times are at most `_AHEAD_US` after arrival, so earlier arrivals can be skipped.
        begin = max(position, after_us - _AHEAD_US)
        client = self._store.client
        packed: Any = await self._store.execute(
            lambda: client.zrangebyscore(self._feed, f"({begin}", "+inf", start=0, num=limit)
        )
        return unpack_feed(packed, position, after_us)

    async def stats(self) -> StateStats:
        """Return size and freshness; the last known ones while Redis is unavailable."""

        async def read() -> StateStats:
            pipeline = self._store.client.pipeline(transaction=False)
            pipeline.zcard(self._users)
            pipeline.hmget(self._store.key("store"), "events", "last_record_us")
            users, (events, last) = await pipeline.execute()
            return StateStats(int(users), int(events or 0), None if last is None else int(last))

        try:
            deadline = asyncio.get_running_loop().time() + _STATS_SECONDS
            self._stats = await self._store.execute(read, deadline)
        except (StateUnavailableError, TimeoutError):
            _LOG.warning("%s does not answer; its size is what it was", self._store.name)
        return self._stats

    async def stored(self, imported: bool) -> AsyncIterator[list[StoredEvent]]:
        """Yield all stored events, a few users at a time; see UserState."""
        last = ""
        while users := await self.users(last, _USERS_PER_PAGE):
            last = users[-1]
            keys = [key for user in users for key in self._user_keys(user)[:2]]

            async def read(keys: list[bytes] = keys) -> list[list[bytes]]:
                pipeline = self._store.client.pipeline(transaction=False)
                for key in keys:
                    pipeline.zrange(key, 0, -1)
                return await pipeline.execute()

            found = await self._store.execute(read)
            for position, user in enumerate(users):
                events = unpack(user, found[2 * position] + found[2 * position + 1])
                if chosen := [event for event in events if imported or event.recorded]:
                    yield chosen

    async def stored_of(self, user_id: str) -> AsyncIterator[list[StoredEvent]]:
        """Yield all stored events of one user, a few thousand at a time; see UserState."""
        keys = self._user_keys(user_id)[:2]

        async def read() -> list[list[bytes]]:
            pipeline = self._store.client.pipeline(transaction=True)
            for key in keys:
                pipeline.zrange(key, 0, -1)
            return await pipeline.execute()

        interactions, impressions = await self._store.execute(read)
        events = unpack(user_id, interactions + impressions)
        for start in range(0, len(events), _PAGE):
            yield events[start : start + _PAGE]

    async def close(self) -> None:
        """Stop background work."""
        await self._files.close()

    def _hash(self, user_id: str) -> bytes:
        return self.erasure_name(user_id).encode()

    def _user_keys(self, user_id: str) -> tuple[bytes, bytes, bytes]:
        """Return the keys of a user's interactions, impressions and known ids."""
        name = self._hash(user_id)
        return (
            self._store.key("interactions", name),
            self._store.key("impressions", name),
            self._store.key("known", name),
        )

    def _batch_keys(self, users: Sequence[str] | dict[str, list[int]]) -> list[bytes]:
        """Return the keys of scripts that store events of some users."""
        keys = [self._users, self._feed, self._deleted_users]
        for user in users:
            keys += self._user_keys(user)
        return keys
