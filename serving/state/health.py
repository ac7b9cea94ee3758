"""Telling health whether the state works, before callers have to find out.

Reading is tried every second. Writing is not, as a server that nobody writes to must not wear out a disk: a
call that has failed for the state is remembered for a while instead.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final

from serving.core.poller import Poller
from serving.scheduling.batcher import QueueFullError
from serving.state.contracts.user_state import StateUnavailableError, UserState

_LOG = logging.getLogger(__name__)
_TRY_SECONDS: Final = 1.0
"""Time between two tries, and the longest that one may take."""
_MEMORY_SECONDS: Final = 10.0
"""How long a failed call counts."""


class StateHealth:
    """Tries the state in the background; create and use it inside a running event loop."""

    def __init__(self, changed: Callable[[bool], Awaitable[None]]) -> None:
        """Prepare to watch; nothing is tried before `start`.

        Args:
            changed: told whether the state works, whenever that has changed; it does at first.
        """
        self.works = True
        self._changed = changed
        self._state: UserState | None = None
        self._failed = float("-inf")
        """When a call has failed last, in seconds of the monotonic clock."""
        self.poller = Poller(self._poll, _TRY_SECONDS, "health cannot be told about the state")
        """Tries the state, once `start` was called."""

    def start(self, state: UserState) -> None:
        """Try a state from now on."""
        self._state = state
        self.poller.start()

    def call_failed(self) -> None:
        """Take note that the state has failed a call."""
        self._failed = time.monotonic()
        self.poller.poll_now()

    async def _poll(self) -> None:
        trouble = await self._try()
        if (trouble is None) != self.works:
            self.works = trouble is None
            _LOG.warning(
                "the state works again" if trouble is None else f"the state does not work: {trouble}"
            )
            await self._changed(self.works)

    async def _try(self) -> str | None:
        """Return what is wrong with the state, if anything."""
        if time.monotonic() - self._failed < _MEMORY_SECONDS:
            return f"it has failed a call within the last {_MEMORY_SECONDS:g} s"
        assert self._state is not None
        try:
            async with asyncio.timeout(_TRY_SECONDS):
                await self._state.users("", 1)
        except (StateUnavailableError, TimeoutError, QueueFullError) as error:
            return str(error) or f"no answer within {_TRY_SECONDS:g} s"
        return None
