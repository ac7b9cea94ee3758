"""Keeps a served model up to date with the store of item changes.

All changes take this one way, in the order of their revisions: those of this process, which wait until they
are applied before they are acknowledged, those of other processes that share the store, and at a start or a
change of model everything that was ever changed. Texts are encoded in a thread of their own, a few at a time;
the model's thread only enters what they come to, so a large upsert does not hold up requests. One change
costs nearly as much as several: where they come faster than one by one, the next wait for each other.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final

from serving.batching import Batcher, QueueFull
from serving.item_changes import ItemChanges, StoredChange
from serving.model import Answer, ApplyJob, Job, LiveModel
from serving.user_state import StateUnavailable
from serving.watch import Watch

_LOG = logging.getLogger(__name__)
CHUNK: Final = 16
"""Changes applied at a time while the model makes lists."""
START_CHUNK: Final = 512
"""The same before that."""
TOGETHER_SECONDS: Final = 0.3
"""While several changes come at a time, they are applied no more often than this. A change that comes alone
never waits, so that neither does a caller who sends one after another."""


class ItemFollower:
    """Applies stored changes to one model; create and use it inside a running event loop."""

    def __init__(
        self,
        model: LiveModel,
        changes: ItemChanges,
        jobs: Batcher[Job, Answer],
        upkeep: Executor,
        applied: Callable[[], None],
        poll_seconds: float,
    ) -> None:
        """Prepare to follow; nothing is applied yet.

        Args:
            model: takes the changes.
            changes: where they come from.
            jobs: the queue of the model's thread.
            upkeep: one thread for what takes time once the model makes lists.
            applied: called in the event loop whenever `model.current` is new.
            poll_seconds: time between two looks for changes by other processes.
        """
        self.revision = 0
        """The last change that has been applied."""
        self._model = model
        self._changes = changes
        self._jobs = jobs
        self._upkeep = upkeep
        self._applied = applied
        self._watch = Watch(
            self._look,
            poll_seconds,
            "item changes cannot be read",
            (StateUnavailable, QueueFull),
        )
        self._progress = asyncio.Condition()
        self._stopped = False

    async def prepare(self, thread: Executor) -> None:
        """Bring a model that makes no lists yet up to date; the model's thread has no part in it.

        Args:
            thread: does the work.

        Raises:
            StateUnavailable: the store failed.
        """
        while stored := await self._changes.since(self.revision, START_CHUNK):
            await self._apply(stored, thread)

    async def _look(self) -> None:
        """Apply what is stored and not yet applied."""
        loop = asyncio.get_running_loop()
        while stored := await self._changes.since(self.revision, CHUNK):
            next_one = loop.time() + TOGETHER_SECONDS
            await self._apply(stored)
            if 1 < len(stored) < CHUNK:
                await asyncio.sleep(next_one - loop.time())

    def start(self) -> None:
        """Follow in the background from now on."""
        self._watch.start()

    async def stop(self) -> None:
        """Stop following; whoever waits for a revision is told."""
        self._stopped = True
        await self._watch.stop()
        async with self._progress:
            self._progress.notify_all()

    async def reach(self, revision: int, deadline: float | None = None) -> None:
        """Return once a revision has been applied, or the model is followed no more.

        Raises:
            TimeoutError: the deadline (event loop time) passed before.
        """
        self._watch.ring()
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
            if thread is None:
                await self._jobs.submit(ApplyJob(self._model, plan), urgent=True)
            else:
                await loop.run_in_executor(thread, self._model.apply, plan)
        except Exception:
            if len(stored) > 1:
                for change in stored:
                    await self._apply([change], thread)
                return
            _LOG.exception("item change %d cannot be applied", stored[0].revision)
        self._applied()
        async with self._progress:
            self.revision = stored[-1].revision
            self._progress.notify_all()
