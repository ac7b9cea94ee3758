"""Import of a histories file into Redis, once per content and by one server."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import polars as pl
from redis.asyncio.lock import Lock
from redis.exceptions import LockError, RedisError

from serving.state.contracts.user_state import IMPRESSION, ImportResult, StateUnavailableError
from serving.state.histories import file_sha256
from serving.state.histories_reader import event_slices
from serving.state.redis.events import pack_imported
from serving.state.redis.store import Argument, Call, RedisStore, Result

_SLICE: Final = 500
"""Rows per script call: it blocks Redis for a few milliseconds."""
_LOCK_SECONDS: Final = 30.0
"""Expiry of the lock: how long a server killed during an import delays the others."""
_POLL_SECONDS: Final = 0.2


async def import_file(
    store: RedisStore,
    path: Path,
    keys_of: Callable[[Sequence[str]], list[bytes]],
    hash_of: Callable[[str], bytes],
) -> ImportResult:
    """Import a file, or wait until another server has; see `serving.state.contracts.user_state.UserState`.

    Args:
        store: the target.
        path: the file.
        keys_of: returns the keys of scripts that store events of some users.
        hash_of: returns a user's member in the set of deleted users.

    Raises:
        InputError: the file is not a histories table.
        StateUnavailableError: Redis failed.
    """
    sha256 = await asyncio.to_thread(file_sha256, path)
    lock = store.client.lock(store.key("importing"), timeout=_LOCK_SECONDS)
    while True:
        if await store.execute(lambda: store.client.hexists(store.key("imports"), sha256)):
            return ImportResult(already_imported=True, rows=0, new=0)
        if await store.execute(lambda: lock.acquire(blocking=False)):
            try:
                return await _import(store, path, sha256, lock, keys_of, hash_of)
            except _TakenOverError:
                pass  # this server was suspended for longer than the lock's expiry; wait for the other one
            finally:
                with contextlib.suppress(RedisError):  # the lock has expired, or will
                    await lock.release()
        await asyncio.sleep(_POLL_SECONDS)


class _TakenOverError(Exception):
    """Another server imports the file now."""


async def _import(
    store: RedisStore,
    path: Path,
    sha256: str,
    lock: Lock,
    keys_of: Callable[[Sequence[str]], list[bytes]],
    hash_of: Callable[[str], bytes],
) -> ImportResult:
    """Import slice by slice, so that Redis serves others in between; an interrupted import repeats."""
    known = await store.execute(lambda: store.client.hexists(store.key("imports"), sha256))
    if known:  # imported since the first check
        return ImportResult(already_imported=True, rows=0, new=0)
    rows = new = 0
    async with contextlib.aclosing(event_slices(path, _SLICE)) as slices:
        while (part := await _while_locked(store, lock, anext(slices, None))) is not None:
            taken, added = await store.run("import", partial(_call, store, part, keys_of, hash_of))
            rows, new = rows + int(taken), new + int(added)
    await store.execute(lambda: store.client.hset(store.key("imports"), sha256, time.time_ns() // 1000))
    return ImportResult(already_imported=False, rows=rows, new=new)


async def _while_locked(store: RedisStore, lock: Lock, work: Awaitable[Result]) -> Result:
    """Return the result of work, for which the lock is extended: a pass over a file may take longer than it.

    Raises:
        _TakenOverError: the lock had expired nevertheless.
    """
    running = asyncio.ensure_future(work)
    try:
        while not running.done():
            await asyncio.wait([running], timeout=_LOCK_SECONDS / 3)
            try:
                await store.execute(lock.reacquire)
            except StateUnavailableError as error:
                if isinstance(error.__cause__, LockError):
                    raise _TakenOverError from error
                raise
        return running.result()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _call(
    store: RedisStore,
    frame: pl.DataFrame,
    keys_of: Callable[[Sequence[str]], list[bytes]],
    hash_of: Callable[[str], bytes],
) -> Call:
    """Return keys and arguments of the script for some rows, which are sorted by user."""
    users: list[str] = frame["user_id"].unique(maintain_order=True).to_list()
    arguments: list[Argument] = [store.max_user_events, len(users)]
    for (user,), rows in frame.group_by("user_id", maintain_order=True):
        arguments += (str(user), hash_of(str(user)), rows.height)
        for _, event_id, time_us, position, item_id, kind in rows.iter_rows():
            packed = pack_imported(item_id, kind, event_id, time_us, position)
            arguments += (time_us, event_id, item_id, kind, int(kind == IMPRESSION), packed)
    return keys_of(users), arguments
