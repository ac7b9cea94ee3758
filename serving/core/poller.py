"""Background polling of files and stores."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

FileVersion: TypeAlias = tuple[int, int, int] | None
"""Inode, modification time in nanoseconds and size of a file; None where it is missing."""
_LOG = logging.getLogger(__name__)


class Poller:
    """Polls every few seconds, and at once after `poll_now`; create and use it inside a running event loop.

    A failed poll is logged, once until one succeeds, and polling continues.
    """

    def __init__(
        self,
        poll: Callable[[], Awaitable[None]],
        seconds: float,
        failure: str,
        expected: tuple[type[Exception], ...] = (),
    ) -> None:
        """Prepare; nothing is polled yet.

        Args:
            poll: polls once; calls never overlap.
            seconds: polling interval.
            failure: log message of a failed poll.
            expected: exceptions that are logged without a traceback.
        """
        self._poll = poll
        self._seconds = seconds
        self._failure = failure
        self._expected = expected
        self._requested = asyncio.Event()
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start polling in the background, for the first time after one interval."""
        self._stopped = False
        self._task = asyncio.create_task(self._run())

    def poll_now(self) -> None:
        """Poll at once, or once more if a poll is in progress."""
        self._requested.set()

    async def stop(self) -> None:
        """Stop polling and cancel a poll in progress.

        A library may swallow the cancellation if a response arrives at the same moment; no poll follows then.
        """
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        failing = False
        while not self._stopped:
            # Not wait_for: Python 3.11's loses a cancellation that coincides with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._requested.wait()
            self._requested.clear()
            try:
                await self._poll()
                failing = False
            except Exception as error:
                if not failing:
                    known = isinstance(error, self._expected)
                    _LOG.warning("%s: %s", self._failure, error, exc_info=None if known else error)
                failing = True


def file_version(path: Path) -> FileVersion:
    """Return what changes when a file is replaced or rewritten; None where it is missing."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
