"""Keeps a served model's counts up to date with the events that any server on the state has recorded.

A model that is loaded first counts what was recorded since its bundle learnt, from the beginning of the
feed; from then on what arrives, a few times a second at most. No event that the bundle may have learnt from
is counted: whatever happened up to the end of its data is the bundle's, whatever came after is not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Final, cast

from ranking.live.recorded_events import CountResult, RecordedEvent
from serving.core.errors import ApiError
from serving.core.event_kinds import history_codes
from serving.core.poller import Poller
from serving.model.interfaces import Answer, CountJob, Job, LiveModel
from serving.scheduling.batcher import Batcher, QueueFullError
from serving.state.contracts.user_state import IMPRESSION, MICROS, FeedPage, StateUnavailableError, UserState

_LOG = logging.getLogger(__name__)
CHUNK: Final = 100
"""Events looked at together while the model makes lists: they are held up for some milliseconds."""
START_CHUNK: Final = 2000
"""The same before that."""
APART_SECONDS: Final = 0.1
"""Events are not counted more often than this: a hundred cost hardly more than one."""


class EventUpdater:
    """Has recorded events counted by one model; create and use it inside a running event loop."""

    def __init__(
        self, model: LiveModel, state: UserState, jobs: Batcher[Job, Answer], poll_seconds: float
    ) -> None:
        """Prepare; nothing is counted yet.

        Args:
            model: counts.
            state: has the events.
            jobs: the queue of the model's thread.
            poll_seconds: time between two polls for what other processes have recorded.
        """
        self.counted = 0
        """Events that this model has counted."""
        self.unknown = 0
        """Events that were of unknown items when they came."""
        self._model = model
        self._state = state
        self._jobs = jobs
        codes = history_codes(model.current.kinds)
        self._kinds = {kind for kind, code in codes.items() if code >= 0 and kind != IMPRESSION}
        # The data have whole seconds: what happened within their last one may have been learnt.
        self._after_us = (model.current.data_end + 1) * MICROS - 1
        self._position = 0
        self._up_to_date = time.monotonic()
        self._poll_seconds = poll_seconds
        self._poller: Poller | None = None
        """Counts events in the background, from `start` to `stop`."""

    @property
    def behind_seconds(self) -> float:
        """How long ago everything recorded was last known to be counted."""
        return time.monotonic() - self._up_to_date

    async def prepare(self, thread: Executor) -> None:
        """Bring a model that makes no lists yet up to date; the model's thread has no part in it.

        Args:
            thread: does the work.

        Raises:
            StateUnavailableError: the store failed.
        """
        await self._follow(START_CHUNK, thread)

    def start(self) -> None:
        """Count events in the background from now on."""
        expected = (StateUnavailableError, QueueFullError, ApiError)
        self._poller = Poller(self._poll, self._poll_seconds, "recorded events cannot be counted", expected)
        self._poller.start()

    def poll_now(self) -> None:
        """Poll for new events soon: some have just been recorded."""
        if self._poller is not None:
            self._poller.poll_now()

    async def stop(self) -> None:
        """Stop counting, for good."""
        poller, self._poller = self._poller, None
        if poller is not None:
            await poller.stop()

    async def _poll(self) -> None:
        """Count what has arrived, and leave those that come next some time to gather."""
        if await self._follow(CHUNK, None):
            await asyncio.sleep(APART_SECONDS)

    async def _follow(self, chunk: int, thread: Executor | None) -> bool:
        """Count page by page; return whether there was anything new."""
        began, behind = self._position, 0
        while (page := await self._page(chunk)).position != self._position:
            if events := self._countable(page.events):
                behind = (await self._count(events, thread)).behind
            self._position = page.position
        while behind:
            behind = (await self._count([], thread)).behind
        self._up_to_date = time.monotonic()
        return self._position != began

    async def _page(self, chunk: int) -> FeedPage:
        return await self._state.recorded_since(self._position, chunk, self._after_us)

    def _countable(self, events: Sequence[RecordedEvent]) -> list[RecordedEvent]:
        """Keep the events of kinds that the model counts, and of what stands before them the same."""
        kinds = self._kinds
        return [
            event
            if all(past.kind in kinds for past in event.before)
            else event._replace(before=tuple(past for past in event.before if past.kind in kinds))
            for event in events
            if event.kind in kinds
        ]

    async def _count(self, events: list[RecordedEvent], thread: Executor | None) -> CountResult:
        """Count events; those that cannot be counted are logged and left out."""
        try:
            if thread is None:
                counted = cast(
                    CountResult, await self._jobs.submit(CountJob(self._model, events), lane="urgent")
                )
            else:
                loop = asyncio.get_running_loop()
                counted = await loop.run_in_executor(thread, self._model.count_events, events)
        except Exception:
            if not self._model.works:
                raise  # the next model counts them
            _LOG.exception("%d recorded events cannot be counted", len(events))
            return CountResult(0, 0, 0)
        self.counted += counted.counted
        self.unknown += counted.unknown
        return counted
