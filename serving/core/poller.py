"""Polling in the background, of everything that a server has to notice by itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

Mark: TypeAlias = tuple[int, int, int] | None
"""What is different once a file has changed."""
_LOG = logging.getLogger(__name__)


class Poller:
    """Polls every few seconds, and at once after `ring`; create and use it inside a running event loop.

    A poll that fails is only logged, once until one succeeds, since the next poll may succeed.
    """

    def __init__(
        self,
        look: Callable[[], Awaitable[None]],
        seconds: float,
        trouble: str,
        expected: tuple[type[Exception], ...] = (),
    ) -> None:
        """Prepare; nothing is polled yet.

        Args:
            look: polls once; it is not called again before it returns.
            seconds: time between two polls.
            trouble: what a failed poll means, for the log.
            expected: failures that need no traceback.
        """
        self._look = look
        self._seconds = seconds
        self._trouble = trouble
        self._expected = expected
        self._rung = asyncio.Event()
        self._stopped = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Poll in the background from now on, for the first time once the seconds are over."""
        self._stopped = False
        self._task = asyncio.create_task(self._run())

    def ring(self) -> None:
        """Poll at once, or once more if a poll is in progress."""
        self._rung.set()

    async def stop(self) -> None:
        """Stop polling; a poll in progress is cancelled.

        Libraries lose a cancellation where an answer comes at the same moment: then it is the last poll.
        """
        self._stopped = True
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self) -> None:
        failing = False
        while not self._stopped:
            # Not wait_for: in Python 3.11 it loses a cancellation that comes together with the ring.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._seconds):
                    await self._rung.wait()
            self._rung.clear()
            try:
                await self._look()
                failing = False
            except Exception as error:
                if not failing:
                    known = isinstance(error, self._expected)
                    _LOG.warning("%s: %s", self._trouble, error, exc_info=None if known else error)
                failing = True


def mark_of(path: Path) -> Mark:
    """Return the mark of a file; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
