"""Erasure of deleted users from Redis's own files.

A deleted key is gone from memory at once, but the append-only file still has the commands that created it,
and a snapshot its content. Both are rewritten after a deletion; one rewrite covers all earlier deletions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis.exceptions import NoPermissionError, ResponseError

from serving.state.contracts.user_state import StateUnavailableError
from serving.state.redis.store import RedisStore

_LOG = logging.getLogger(__name__)
_POLL_SECONDS: Final = 0.05
_CLEANED: Final = "deletions_cleaned"
"""Field of the store's description: the last deletion erased from Redis's files."""
_BUSY: Final = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress")


class RedisFiles:
    """Has Redis rewrite its files; create and use it inside a running event loop."""

    def __init__(self, store: RedisStore) -> None:
        """Use an open store."""
        self._store = store
        self._lock = asyncio.Lock()
        self._running: set[asyncio.Task[None]] = set()

    async def clean(self, deletion: int) -> None:
        """Return once a deletion and all earlier ones are erased from Redis's files.

        Raises:
            StateUnavailableError: Redis failed, or is still rewriting them, for which the next call waits.
        """
        task = asyncio.create_task(self._clean(deletion))
        self._running.add(task)
        task.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(self._store.erase_seconds):
                await asyncio.shield(task)
        except TimeoutError as error:
            raise StateUnavailableError(
                f"the user is erased, but {self._store.name} is still writing its files anew; call again"
            ) from error

    async def close(self) -> None:
        """Stop waiting for running rewrites."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # marks it as retrieved; callers that still wait get it, too

    async def _clean(self, deletion: int) -> None:
        store = self._store
        async with self._lock:
            names = ("deletions", _CLEANED)
            last, cleaned = await store.execute(lambda: store.client.hmget(store.key("store"), *names))
            if int(cleaned or 0) >= deletion:
                return
            try:
                await self._write_files()
            except _ForbiddenError as error:
                _LOG.warning(
                    "%s does not permit rewriting its files (%s): erased users stay in them until it does so",
                    store.name,
                    error,
                )
                return
            covered = int(last or 0)
            await store.run("raise", lambda: ((), (_CLEANED, covered)))

    async def _write_files(self) -> None:
        client = self._store.client
        info = await self._info()
        if info["aof_enabled"]:
            await self._write(client.bgrewriteaof, "aof_last_bgrewrite_status")
        if await self._snapshots():
            await self._write(client.bgsave, "rdb_last_bgsave_status")

    async def _snapshots(self) -> bool:
        """Return whether Redis writes snapshots; true if unknown."""
        try:
            found = await self._store.client.config_get("save")
        except ResponseError:
            return True
        return bool(found.get("save"))

    async def _write(self, begin: Callable[[], Awaitable[Any]], status: str) -> None:
        """Have a file written from the current content, and wait for it."""
        await self._idle()  # a write in progress may have begun before the deletion
        try:
            await begin()
        except (NoPermissionError, ResponseError) as error:
            raise _ForbiddenError(str(error)) from error
        if (await self._idle())[status] != "ok":
            raise StateUnavailableError(
                f"the user is erased, but {self._store.name} could not write its files anew"
            )

    async def _idle(self) -> dict[str, Any]:
        """Wait until Redis writes no file."""
        while True:
            info = await self._info()
            if not any(int(info.get(name, 0)) for name in _BUSY):
                return info
            await asyncio.sleep(_POLL_SECONDS)

    async def _info(self) -> dict[str, Any]:
        return await self._store.execute(lambda: self._store.client.info("persistence"))


class _ForbiddenError(Exception):
    """Redis does not permit this command."""
