"""What a request is told by the store: the shopper's events, and what other servers have done to the items.

A store that does not answer in time must not stop a list: it is made without the history then. And an item
that has been deleted through another server is in no list any more, whether its deletion has arrived here or
not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from conf.serving import ServeConfig
from serving.envelope import CALL
from serving.host import ModelHost
from serving.user_state import PastEvent, StateUnavailable, UserState

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recalled:
    """What the store says to one request."""

    events: list[PastEvent] | None
    """The shopper's latest events, oldest first; None where the store did not answer."""
    deleted_items: Sequence[str]
    """Items that must not be shown although the model still has them."""


_NOTHING: Final = Recalled(None, ())


class Recall:
    """Asks the store on behalf of requests; create it inside a running event loop."""

    def __init__(self, host: ModelHost, state: UserState, config: ServeConfig) -> None:
        """Ask this store, for a model of this host."""
        self._host = host
        self._state = state
        self._config = config
        self._answers = True

    async def ask(self, user: str, before_us: int | None = None, impressions: bool = True) -> Recalled:
        """Return what the store knows, once the model reflects what has been acknowledged elsewhere.

        Both together take at most `history_timeout_seconds`.

        Args:
            user: whose events, as the store knows them; empty for nobody.
            before_us: only events strictly before this time.
            impressions: whether impressions are wanted.

        Raises:
            QueueFull: too many requests wait for the store.
            TimeoutError: the caller's deadline passed.
        """
        call, now = CALL.get(), asyncio.get_running_loop().time()
        budget = now + self._config.history_timeout_seconds
        until = budget if call.deadline is None else min(call.deadline, budget)
        applied, limit = self._host.revision, self._config.max_history
        try:
            found = await self._state.snapshot(user, limit, applied, before_us, until, impressions)
        except (StateUnavailable, TimeoutError) as error:
            if isinstance(error, TimeoutError) and until == call.deadline:
                raise
            self._note(error)
            return _NOTHING
        self._note(None)
        if found.acknowledged > applied:
            try:
                await self._host.reach(found.acknowledged, until)
            except TimeoutError:
                if until == call.deadline:
                    raise
                _LOG.info("item changes up to %d are still being applied", found.acknowledged)
        return Recalled(found.events, found.deleted_items)

    def _note(self, error: Exception | None) -> None:
        """Say once that the store does not answer, and once that it does again."""
        if error is not None and self._answers:
            said = str(error) or f"no answer within {self._config.history_timeout_seconds:g} s"
            _LOG.warning("lists are made without stored events from now on: %s", said)
        if error is None and not self._answers:
            _LOG.warning("stored events can be read again")
        self._answers = error is None
