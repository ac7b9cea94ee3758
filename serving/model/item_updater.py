"""Updates of a served model from the store of item changes.

All changes are applied here, in order of their revisions: those of this process, which are acknowledged when
applied, those of other processes that share the store, and for a new model all stored changes. Texts
are encoded in a separate thread, a few at a time; the model's thread only applies the result, so that a large
upsert does not delay requests. One change costs nearly as much as several, so frequent changes are batched.
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
"""Most changes with possibly new texts per batch while the model is served."""
LIGHT_CHUNK: Final = 128
"""Most changes per batch while the model is served."""
START_CHUNK: Final = 512
"""Most changes per batch before that."""
REMOTE_ENCODING_SECONDS: Final = 1.0
"""How long to wait for another server to encode the texts of its changes, unless a request here waits for
them."""
COALESCE_SECONDS: Final = 0.2
"""Shortest time between two batches of several changes. A single change is applied at once, so that a client
that sends one after another is not slowed down."""


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
            model: the model to update.
            changes: source of the changes.
            jobs: the queue of the model's thread.
            upkeep: one thread that prepares changes while the model is served.
            poll_seconds: polling interval for changes by other processes.
        """
        self.revision = 0
        """Revision of the last applied change."""
        self._model = model
        template = model.current.manifest.get("template", {})
        self._text_fields = {*template.get("text_fields", ()), *template.get("text_fallback_fields", ())}
        """Attributes that the model's texts are made from."""
        self._changes = changes
        self._jobs = jobs
        self._upkeep = upkeep
        self._poll_seconds = poll_seconds
        self._poller: Poller | None = None
        """Applies changes in the background, from `start` to `stop`."""
        self._progress = asyncio.Condition()
        self._stopped = False
        self._awaited = 0
        """The newest revision that a request waits for."""
        self._at_once = asyncio.Event()
        """Set while a request waits; changes are not held back for a batch then."""
        self._deferred: tuple[int, float] | None = None
        """The oldest change whose encoding is left to another server, and since when (event loop time)."""

    async def prepare(self, thread: Executor) -> None:
        """Bring a model that is not served yet up to date, bypassing the model's queue.

        Args:
            thread: runs the work.

        Raises:
            StateUnavailableError: the store failed.
        """
        while stored := await self._changes.since(self.revision, START_CHUNK):
            await self._apply(stored, thread)

    async def _poll(self) -> None:
        """Apply all stored changes that are due."""
        loop = asyncio.get_running_loop()
        while stored := await self._next(loop.time()):
            self._at_once.clear()
            next_batch = loop.time() + COALESCE_SECONDS
            await self._apply(stored)
            if 1 < len(stored) < CHUNK:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(next_batch):
                        await self._at_once.wait()

    async def _next(self, now: float) -> list[StoredChange]:
        """Return the next batch of changes: many, but few with texts, which are expensive to encode."""
        found = await self._changes.since(self.revision, LIGHT_CHUNK)
        heavy = [index for index, stored in enumerate(found) if self._may_have_text(stored)]
        return self._due(found[: heavy[CHUNK]] if len(heavy) > CHUNK else found, now)

    def _may_have_text(self, stored: StoredChange) -> bool:
        """Return whether a change may change an item's text."""
        change = stored.change
        if not isinstance(change, ItemChange) or change.attributes is None:
            return False
        return not (change.partial and self._text_fields.isdisjoint(change.attributes))

    def _encodes(self, stored: StoredChange) -> bool:
        """Return whether a change may have a text without a stored vector."""
        return self._may_have_text(stored) and stored.item.encoded is None

    def _due(self, stored: list[StoredChange], now: float) -> list[StoredChange]:
        """Return the changes to apply now; trailing ones may wait for another server to encode them."""
        for count in range(len(stored), 0, -1):
            if stored[count - 1].revision <= self._awaited or not self._encodes(stored[count - 1]):
                self._deferred = None
                return stored[:count]
        if stored and (self._deferred is None or self._deferred[0] != stored[0].revision):
            self._deferred = stored[0].revision, now
        due = self._deferred is not None and now - self._deferred[1] >= REMOTE_ENCODING_SECONDS
        return stored if due else []

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
            revision: the revision.
            deadline: event loop time.
            at_once: whether a response waits for it; changes are not held back for a batch then.

        Raises:
            TimeoutError: the deadline passed.
        """
        self._awaited = max(self._awaited, revision)
        if at_once:
            self._at_once.set()
        if self._poller is not None:
            self._poller.poll_now()
        async with asyncio.timeout_at(deadline), self._progress:
            await self._progress.wait_for(lambda: self.revision >= revision or self._stopped)

    async def _apply(self, stored: Sequence[StoredChange], thread: Executor | None = None) -> None:
        """Apply changes; if the batch fails, one by one, so that only the faulty one is skipped.

        Args:
            stored: the changes.
            thread: runs the work for a model that is not served yet.
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
            await asyncio.gather(applied, self._store_vectors(stored, plan))
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

    async def _store_vectors(self, stored: Sequence[StoredChange], plan: PreparedItemChanges) -> None:
        """Store newly encoded vectors; a failure only means that they are encoded again."""
        items = [s for s in stored if isinstance(s.change, ItemChange)]
        encoded = [(s, plan.fresh[s.item.item_id]) for s in items if s.item.item_id in plan.fresh]
        if encoded:
            try:
                await self._changes.store_vectors(encoded)
            except Exception as error:
                known = isinstance(error, (StateUnavailableError, QueueFullError))
                _LOG.warning("vectors of texts are not kept: %s", error, exc_info=None if known else error)
