"""User context of a request: the user's stored events, and item changes made through other servers.

If the state does not respond in time, the list is made without the history. An item deleted through another
server is excluded even before its deletion has been applied here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from conf.serving import ServeConfig
from serving.core.call_context import annotate, stage
from serving.core.event_kinds import history_codes
from serving.model.host import ModelHost
from serving.scheduling.batcher import QueueFullError
from serving.state.contracts.user_state import PastEvent, Snapshot, StateUnavailableError, UserState
from serving.transport.call_interceptor import CALL

_LOG = logging.getLogger(__name__)
_DEADLINE_LOG_SECONDS: Final = 60.0
"""Least time between two lines about calls whose deadlines are too short for the state."""
_REREAD_FACTOR: Final = 10
"""How many times as many events are read if the model ignores the kinds of most of the latest ones."""


@dataclass(frozen=True)
class UserContext:
    """State that one request depends on."""

    events: list[PastEvent] | None
    """The user's latest events, oldest first; None where the state was unavailable."""
    deleted_items: Sequence[str]
    """Deleted items that the model still contains."""


_UNAVAILABLE: Final = UserContext(None, ())


class UserContextLoader:
    """Loads the user context of requests; create it inside a running event loop."""

    def __init__(self, host: ModelHost, state: UserState, config: ServeConfig) -> None:
        """Load from a state, for the models of a host."""
        self._host = host
        self._state = state
        self._config = config
        self._available = True
        self._short_deadlines = 0
        """Lists made without stored events for want of time since the last line about them."""
        self._reported_deadlines = -_DEADLINE_LOG_SECONDS

    async def load(
        self,
        user: str,
        before_us: int | None = None,
        impressions: bool = True,
        patient: bool = False,
        host: ModelHost | None = None,
    ) -> UserContext:
        """Return a user's context, once the model reflects item changes acknowledged by other servers.

        Both together take at most `limits.history_seconds`, and at most half of the time left until the
        deadline: the model needs the other half.

        Args:
            user: stored id; empty for an anonymous request.
            before_us: only events strictly before this time.
            impressions: whether events include impressions.
            patient: whether to raise if the state's queue is full, instead of returning no events.
            host: of the model that makes the list; None: the current one.

        Raises:
            QueueFullError: the state's queue is full, and `patient` is set.
            TimeoutError: the call's deadline passed.
        """
        call, now = CALL.get(), asyncio.get_running_loop().time()
        until = now + self._config.limits.history_seconds
        hurried = call.deadline is not None and (now + call.deadline) / 2 < until
        if call.deadline is not None and hurried:
            until = (now + call.deadline) / 2
        host = host or self._host
        applied = host.revision
        try:
            with stage("history"):
                found = await self._snapshot(host, user, applied, before_us, until, impressions)
        except (StateUnavailableError, TimeoutError, QueueFullError) as error:
            if patient and isinstance(error, QueueFullError):
                raise
            self._raise_if_expired(error)
            late = isinstance(error, TimeoutError) or getattr(error, "reason", "") == "deadline"
            if hurried and late:  # the caller's lack of time says nothing about the state
                self._log_short_deadline(until - now)
            else:
                self._log_availability(error)
            annotate(history="unavailable")
            return _UNAVAILABLE
        self._log_availability(None)
        if found.acknowledged > applied:
            try:
                await host.wait_for_revision(found.acknowledged, until, at_once=True)
            except TimeoutError as error:
                self._raise_if_expired(error)
                _LOG.info("item changes up to %d are still being applied", found.acknowledged)
        return UserContext(found.events, found.deleted_items)

    async def _snapshot(
        self,
        host: ModelHost,
        user: str,
        applied: int,
        before_us: int | None,
        until: float,
        impressions: bool,
    ) -> Snapshot:
        """Return a snapshot with the latest events; read further back if the model ignores most of them.

        Frequent events of other kinds (scrolling, say) must not push purchases out of the history.
        """
        limit = self._config.max_history
        found = await self._state.snapshot(user, limit, applied, before_us, until, impressions)
        if len(found.events) < limit:
            return found
        codes = history_codes(host.served.model.kinds)
        if 2 * sum(event.kind in codes for event in found.events) >= limit:
            return found
        found = await self._state.snapshot(
            user, limit * _REREAD_FACTOR, applied, before_us, until, impressions
        )
        return replace(found, events=[event for event in found.events if event.kind in codes][-limit:])

    @staticmethod
    def _raise_if_expired(error: Exception) -> None:
        """Raise TimeoutError if the call's deadline has passed."""
        deadline = CALL.get().deadline
        if deadline is not None and deadline <= asyncio.get_running_loop().time():
            raise TimeoutError from error

    def _log_short_deadline(self, waited: float) -> None:
        """Log that a deadline left too little time for the stored events, once a minute at most."""
        self._short_deadlines += 1
        now = asyncio.get_running_loop().time()
        if now - self._reported_deadlines < _DEADLINE_LOG_SECONDS:
            return
        _LOG.warning(
            "lists made without stored events because of their callers' deadlines: %d since the last such "
            "line; the latest had %.0f ms for the events, half of what its deadline had left; deadlines of "
            "%.0f ms leave all of limits.history_seconds",
            self._short_deadlines,
            1000 * max(0.0, waited),
            2000 * self._config.limits.history_seconds,
        )
        self._short_deadlines, self._reported_deadlines = 0, now

    def _log_availability(self, error: Exception | None) -> None:
        """Log once when the state becomes unavailable, and once when it is available again."""
        if error is not None and self._available:
            reason = str(error) or f"no answer within {self._config.limits.history_seconds:g} s"
            _LOG.warning("lists are made without stored events from now on: %s", reason)
        if error is None and not self._available:
            _LOG.warning("stored events can be read again")
        self._available = error is None
