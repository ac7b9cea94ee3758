"""Updates of a served model's counts from events recorded by any server on the state.

A newly loaded model catches up with the events recorded since the end of its bundle's data; then it follows
the feed, a few times a second at most. Events up to the end of the bundle's data are not counted: the model
was trained on them.
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
"""Events per batch while the model is served: counting delays lists by some milliseconds."""
START_CHUNK: Final = 2000
"""Events per batch before that."""
MIN_INTERVAL_SECONDS: Final = 0.1
"""Shortest time between two batches: a hundred events cost hardly more than one."""


class EventUpdater:
    """Has recorded events counted by one model; create and use it inside a running event loop."""

    def __init__(
        self, model: LiveModel, state: UserState, jobs: Batcher[Job, Answer], poll_seconds: float
    ) -> None:
        """Prepare; nothing is counted yet.

        Args:
            model: the model to update.
            state: source of the events.
            jobs: the queue of the model's thread.
            poll_seconds: polling interval for events recorded by other processes.
        """
        self.counted = 0
        """Number of counted events."""
        self.unknown = 0
        """Number of events whose items were unknown."""
        self._model = model
        self._state = state
        self._jobs = jobs
        codes = history_codes(model.current.kinds)
        self._kinds = {kind for kind, code in codes.items() if code >= 0 and kind != IMPRESSION}
        # Training data have whole seconds: events within the last one may have been trained on.
        self._after_us = (model.current.data_end + 1) * MICROS - 1
        self._position = 0
        self._up_to_date = time.monotonic()
        self._poll_seconds = poll_seconds
        self._poller: Poller | None = None
        """Counts events in the background, from `start` to `stop`."""

    @property
    def behind_seconds(self) -> float:
        """Seconds since all recorded events were last known to be counted."""
        return time.monotonic() - self._up_to_date

    async def prepare(self, thread: Executor) -> None:
        """Bring a model that is not served yet up to date, bypassing the model's queue.

        Args:
            thread: runs the work.

        Raises:
            StateUnavailableError: the store failed.
        """
        await self._catch_up(START_CHUNK, thread)

    def start(self) -> None:
        """Count events in the background from now on."""
        expected = (StateUnavailableError, QueueFullError, ApiError)
        self._poller = Poller(self._poll, self._poll_seconds, "recorded events cannot be counted", expected)
        self._poller.start()

    def poll_now(self) -> None:
        """Poll for new events at once."""
        if self._poller is not None:
            self._poller.poll_now()

    async def stop(self) -> None:
        """Stop counting, for good."""
        poller, self._poller = self._poller, None
        if poller is not None:
            await poller.stop()

    async def _poll(self) -> None:
        """Count new events, then pause so that the next ones form a batch."""
        if await self._catch_up(CHUNK, None):
            await asyncio.sleep(MIN_INTERVAL_SECONDS)

    async def _catch_up(self, chunk: int, thread: Executor | None) -> bool:
        """Count page by page; return whether there were new events."""
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
        """Return the events of counted kinds, with preceding interactions of these kinds only."""
        kinds = self._kinds
        return [
            event
            if all(past.kind in kinds for past in event.before)
            else event._replace(before=tuple(past for past in event.before if past.kind in kinds))
            for event in events
            if event.kind in kinds
        ]

    async def _count(self, events: list[RecordedEvent], thread: Executor | None) -> CountResult:
        """Count events; log and skip a batch that fails."""
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
