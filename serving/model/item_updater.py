"""Keeps a served model up to date with the store of item changes.

All changes are applied here, in the order of their revisions: those of this process, which are acknowledged
once they are applied, those of other processes that share the store, and after a start or a change of model
every stored change. Texts are encoded in a thread of their own, a few at a time; the model's thread only
enters the result, so that a large upsert does not delay requests. One change costs nearly as much as several:
while they arrive several at a time, they are applied in batches.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Sequence
from concurrent.futures import Executor
from typing import Final

from ranking.catalogue.live_catalogue import ItemChange, PreparedItemChanges
from serving.core.errors import ApiError
from serving.core.poller import Poller
from serving.model.interfaces import Answer, ApplyJob, Job, LiveModel
from serving.scheduling.batcher import Batcher, QueueFullError
from serving.state.contracts.item_changes import ItemChanges, StoredChange
from serving.state.contracts.user_state import StateUnavailableError

_LOG = logging.getLogger(__name__)
CHUNK: Final = 16
"""Changes that may bring new texts, applied at a time while the model makes lists."""
LIGHT_CHUNK: Final = 128
"""Changes of any kind, applied at a time while the model makes lists."""
START_CHUNK: Final = 512
"""The same before that."""
OTHERS_SECONDS: Final = 1.0
"""How long encoding the texts of changes that came through another server is left to that server, unless a
request here waits for them."""
TOGETHER_SECONDS: Final = 0.2
"""While several changes come at a time, they are applied no more often than this. A change that comes alone
is applied at once, so that a client that sends one after another is not slowed down."""


class ItemUpdater:
    """Applies stored changes to one model; create and use it inside a running event loop."""

    def __init__(
        self,
        model: LiveModel,
        changes: ItemChanges,
        jobs: Batcher[Job, Answer],
        upkeep: Executor,
        poll_seconds: float,
    ) -> None:
        """Prepare; nothing is applied yet.

        Args:
            model: takes the changes.
            changes: where they come from.
            jobs: the queue of the model's thread.
            upkeep: one thread for what takes time once the model makes lists.
            poll_seconds: time between two polls for changes by other processes.
        """
        self.revision = 0
        """The last change that has been applied."""
        self._model = model
        template = model.current.manifest.get("template", {})
        self._read = {*template.get("text_fields", ()), *template.get("text_fallback_fields", ())}
        """Attributes that the model makes texts of."""
        self._changes = changes
        self._jobs = jobs
        self._upkeep = upkeep
        self._poll_seconds = poll_seconds
        self._poller: Poller | None = None
        """Applies changes in the background, from `start` to `stop`."""
        self._progress = asyncio.Condition()
        self._stopped = False
        self._wanted = 0
        """The newest change that a request waits for."""
        self._at_once = asyncio.Event()
        """Set when a request waits for whose sake changes are not held back for a batch."""
        self._left: tuple[int, float] | None = None
        """The oldest change that is left to another server, and since when (event loop time)."""

    async def prepare(self, thread: Executor) -> None:
        """Bring a model that makes no lists yet up to date; the model's thread has no part in it.

        Args:
            thread: does the work.

        Raises:
            StateUnavailableError: the store failed.
        """
        while stored := await self._changes.since(self.revision, START_CHUNK):
            await self._apply(stored, thread)

    async def _poll(self) -> None:
        """Apply what is stored and not yet applied."""
        loop = asyncio.get_running_loop()
        while stored := await self._next(loop.time()):
            self._at_once.clear()
            next_one = loop.time() + TOGETHER_SECONDS
            await self._apply(stored)
            if 1 < len(stored) < CHUNK:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(next_one):
                        await self._at_once.wait()

    async def _next(self, now: float) -> list[StoredChange]:
        """Return the changes to apply together: many prices, but few texts, which take the model's time."""
        found = await self._changes.since(self.revision, LIGHT_CHUNK)
        heavy = [place for place, stored in enumerate(found) if self._may_have_text(stored)]
        return self._due(found[: heavy[CHUNK]] if len(heavy) > CHUNK else found, now)

    def _may_have_text(self, stored: StoredChange) -> bool:
        """Tell whether an item may have another text after a change."""
        change = stored.change
        if not isinstance(change, ItemChange) or change.attributes is None:
            return False
        return not (change.partial and self._read.isdisjoint(change.attributes))

    def _encodes(self, stored: StoredChange) -> bool:
        """Tell whether a change may have a text whose vector is not stored yet."""
        return self._may_have_text(stored) and stored.item.encoded is None

    def _due(self, stored: list[StoredChange], now: float) -> list[StoredChange]:
        """Leave out the last changes if no request waits for them and another server is encoding them."""
        for place in range(len(stored), 0, -1):
            if stored[place - 1].revision <= self._wanted or not self._encodes(stored[place - 1]):
                self._left = None
                return stored[:place]
        if stored and (self._left is None or self._left[0] != stored[0].revision):
            self._left = stored[0].revision, now
        return stored if self._left is not None and now - self._left[1] >= OTHERS_SECONDS else []

    def start(self) -> None:
        """Apply changes in the background from now on."""
        expected = (StateUnavailableError, QueueFullError, ApiError)
        self._poller = Poller(self._poll, self._poll_seconds, "item changes cannot be read", expected)
        self._poller.start()

    async def stop(self) -> None:
        """Stop applying changes, for good; calls of `wait_for_revision` return."""
        self._stopped = True
        poller, self._poller = self._poller, None
        if poller is not None:
            await poller.stop()
        async with self._progress:
            self._progress.notify_all()

    async def wait_for_revision(
        self, revision: int, deadline: float | None = None, at_once: bool = False
    ) -> None:
        """Return once a revision has been applied, or updates have been stopped.

        Args:
            revision: what is waited for.
            deadline: event loop time until which it is waited for.
            at_once: whether a response waits for it; changes are not held back for a batch then.

        Raises:
            TimeoutError: the deadline passed before.
        """
        self._wanted = max(self._wanted, revision)
        if at_once:
            self._at_once.set()
        if self._poller is not None:
            self._poller.poll_now()
        async with asyncio.timeout_at(deadline), self._progress:
            await self._progress.wait_for(lambda: self.revision >= revision or self._stopped)

    async def _apply(self, stored: Sequence[StoredChange], thread: Executor | None = None) -> None:
        """Apply changes; if they fail, apply them one by one, so that only the one at fault is left out.

        Args:
            stored: the changes.
            thread: does all of it, for a model that makes no lists yet.
        """
        loop = asyncio.get_running_loop()
        changes = [change.change for change in stored]
        try:
            plan = await loop.run_in_executor(thread or self._upkeep, self._model.plan, changes)
            applied: Awaitable[object] = (
                self._jobs.submit(ApplyJob(self._model, plan), lane="urgent")
                if thread is None
                else loop.run_in_executor(thread, self._model.apply, plan)
            )
            await asyncio.gather(applied, self._keep(stored, plan))
        except Exception:
            if not self._model.works:
                raise  # the next model takes these changes
            if len(stored) > 1:
                for change in stored:
                    await self._apply([change], thread)
                return
            _LOG.exception("item change %d cannot be applied", stored[0].revision)
        async with self._progress:
            self.revision = stored[-1].revision
            self._progress.notify_all()

    async def _keep(self, stored: Sequence[StoredChange], plan: PreparedItemChanges) -> None:
        """Keep what has been encoded; where that fails it has to be done again, no more."""
        items = [s for s in stored if isinstance(s.change, ItemChange)]
        encoded = [(s, plan.fresh[s.item.item_id]) for s in items if s.item.item_id in plan.fresh]
        if encoded:
            try:
                await self._changes.store_vectors(encoded)
            except Exception as error:
                known = isinstance(error, (StateUnavailableError, QueueFullError))
                _LOG.warning("vectors of texts are not kept: %s", error, exc_info=None if known else error)
