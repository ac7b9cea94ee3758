"""Health check of the state: a probe that reads every second, and failures of calls.

Writes are not probed, because an idle server must not wear out a disk: a call that failed on the state makes
it unhealthy for a while instead.
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
_PROBE_SECONDS: Final = 1.0
"""Interval and timeout of probes."""
_FAILURE_SECONDS: Final = 10.0
"""How long a failed call makes the state unhealthy."""


class StateHealth:
    """Probes the state in the background; create and use it inside a running event loop."""

    def __init__(self, changed: Callable[[bool], Awaitable[None]]) -> None:
        """Prepare; nothing is probed before `start`.

        Args:
            changed: called with whether the state works, whenever that changes; it works at first.
        """
        self.works = True
        self._changed = changed
        self._state: UserState | None = None
        self._failed = float("-inf")
        """Monotonic time of the last failed call, in seconds."""
        self.poller = Poller(self._poll, _PROBE_SECONDS, "the state's health cannot be reported")
        """Probes the state, from `start` on."""

    def start(self, state: UserState) -> None:
        """Probe a state from now on."""
        self._state = state
        self.poller.start()

    def call_failed(self) -> None:
        """Report that the state has failed a call."""
        self._failed = time.monotonic()
        self.poller.poll_now()

    async def _poll(self) -> None:
        fault = await self._probe()
        if (fault is None) != self.works:
            self.works = fault is None
            _LOG.warning("the state works again" if fault is None else f"the state does not work: {fault}")
            await self._changed(self.works)

    async def _probe(self) -> str | None:
        """Return the fault of the state; None if it works."""
        if time.monotonic() - self._failed < _FAILURE_SECONDS:
            return f"it has failed a call within the last {_FAILURE_SECONDS:g} s"
        assert self._state is not None
        try:
            async with asyncio.timeout(_PROBE_SECONDS):
                await self._state.users("", 1)
        except (StateUnavailableError, TimeoutError, QueueFullError) as error:
            return str(error) or f"no answer within {_PROBE_SECONDS:g} s"
        return None
