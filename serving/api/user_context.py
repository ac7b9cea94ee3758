"""What a request is told by the store: the shopper's events, and what other servers have done to the items.

A store that does not answer in time must not stop a list: it is made without the history then. And an item
that has been deleted through another server is in no list any more, whether its deletion has arrived here or
not.
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
_DEEPER: Final = 10
"""How many times as many events are read of a user most of whose latest ones mean nothing to the model."""


@dataclass(frozen=True)
class Recalled:
    """What the store says to one request."""

    events: list[PastEvent] | None
    """The shopper's latest events, oldest first; None where the store did not answer."""
    deleted_items: Sequence[str]
    """Items that must not be shown although the model still has them."""


_NOTHING: Final = Recalled(None, ())


class UserContextLoader:
    """Asks the store on behalf of requests; create it inside a running event loop."""

    def __init__(self, host: ModelHost, state: UserState, config: ServeConfig) -> None:
        """Ask this store, for a model of this host."""
        self._host = host
        self._state = state
        self._config = config
        self._answers = True

    async def ask(
        self, user: str, before_us: int | None = None, impressions: bool = True, patient: bool = False
    ) -> Recalled:
        """Return what the store knows, once the model reflects what has been acknowledged elsewhere.

        Both together take at most `limits.history_seconds`, and at most half of what the deadline leaves: the
        model needs the other half.

        Args:
            user: whose events, as the store knows them; empty for nobody.
            before_us: only events strictly before this time.
            impressions: whether impressions are wanted.
            patient: raise where too many wait for the store, instead of doing without it.

        Raises:
            QueueFull: too many wait for the store, and the caller is patient.
            TimeoutError: the caller's deadline passed.
        """
        call, now = CALL.get(), asyncio.get_running_loop().time()
        until = now + self._config.limits.history_seconds
        if call.deadline is not None:
            until = min(until, (now + call.deadline) / 2)
        applied = self._host.revision
        try:
            with stage("history"):
                found = await self._snapshot(user, applied, before_us, until, impressions)
        except (StateUnavailableError, TimeoutError, QueueFullError) as error:
            if patient and isinstance(error, QueueFullError):
                raise
            self._in_time(error)
            self._note(error)
            annotate(history="unavailable")
            return _NOTHING
        self._note(None)
        if found.acknowledged > applied:
            try:
                await self._host.reach(found.acknowledged, until, at_once=True)
            except TimeoutError as error:
                self._in_time(error)
                _LOG.info("item changes up to %d are still being applied", found.acknowledged)
        return Recalled(found.events, found.deleted_items)

    async def _snapshot(
        self, user: str, applied: int, before_us: int | None, until: float, impressions: bool
    ) -> Snapshot:
        """Return a snapshot with the latest events, and more of them where few mean anything to the model.

        What a shop records besides (every scrolling, say) must not push out what shoppers buy.
        """
        limit = self._config.max_history
        found = await self._state.snapshot(user, limit, applied, before_us, until, impressions)
        if len(found.events) < limit:
            return found
        codes = history_codes(self._host.served.model.kinds)
        if 2 * sum(event.kind in codes for event in found.events) >= limit:
            return found
        deeper = limit * _DEEPER
        found = await self._state.snapshot(user, deeper, applied, before_us, until, impressions)
        return replace(found, events=[event for event in found.events if event.kind in codes][-limit:])

    @staticmethod
    def _in_time(error: Exception) -> None:
        """Give up where nobody waits for an answer any more."""
        deadline = CALL.get().deadline
        if deadline is not None and deadline <= asyncio.get_running_loop().time():
            raise TimeoutError from error

    def _note(self, error: Exception | None) -> None:
        """Say once that the store does not answer, and once that it does again."""
        if error is not None and self._answers:
            said = str(error) or f"no answer within {self._config.limits.history_seconds:g} s"
            _LOG.warning("lists are made without stored events from now on: %s", said)
        if error is None and not self._answers:
            _LOG.warning("stored events can be read again")
        self._answers = error is None
