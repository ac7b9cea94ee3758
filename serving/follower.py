"""Keeps a served model up to date with the store of item changes.

All changes take this one way, in the order of their revisions: those of this process, which wait until they
are applied before they are acknowledged, those of other processes that share the store, and at a start or a
change of model everything that was ever changed. Texts are encoded a few at a time between other work of the
model's thread, so a large upsert does not hold up requests.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from serving.batching import Batcher, QueueFull
from serving.item_changes import ItemChanges, StoredChange
from serving.model import Answer, ApplyJob, EncodeJob, Job, LiveModel
from serving.user_state import StateUnavailable
from serving.watch import Watch

_LOG = logging.getLogger(__name__)
CHUNK: Final = 16
"""Changes applied at a time, and texts encoded at a time, while requests are served: about 15 ms."""
START_CHUNK: Final = 512
"""The same where nothing waits."""


class ItemFollower:
    """Applies stored changes to one model; create and use it inside a running event loop."""

    def __init__(
        self,
        model: LiveModel,
        changes: ItemChanges,
        jobs: Batcher[Job, Answer],
        applied: Callable[[], None],
        poll_seconds: float,
    ) -> None:
        """Prepare to follow; nothing is applied yet.

        Args:
            model: takes the changes.
            changes: where they come from.
            jobs: the queue of the model's thread.
            applied: called in the event loop whenever `model.current` is new.
            poll_seconds: time between two looks for changes by other processes.
        """
        self.revision = 0
        """The last change that has been applied."""
        self._model = model
        self._changes = changes
        self._jobs = jobs
        self._applied = applied
        self._watch = Watch(
            lambda: self.catch_up(CHUNK),
            poll_seconds,
            "item changes cannot be read",
            (StateUnavailable, QueueFull),
        )
        self._progress = asyncio.Condition()
        self._stopped = False

    async def catch_up(self, chunk: int) -> None:
        """Apply what is stored and not yet applied, `chunk` changes and texts at a time.

        Raises:
            StateUnavailable: the store failed.
        """
        while stored := await self._changes.since(self.revision, chunk):
            await self._apply(stored, chunk)

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

    async def _apply(self, stored: Sequence[StoredChange], chunk: int) -> None:
        """Apply changes; if they fail, apply them one by one, so that only the one at fault is left out."""
        try:
            plan = await asyncio.to_thread(self._model.plan, [s.change for s in stored])
            vectors = [
                await self._run(EncodeJob(self._model, plan.texts[start : start + chunk]))
                for start in range(0, len(plan.texts), chunk)
            ]
            joined = np.concatenate(vectors) if vectors else np.zeros((0, 0), dtype=np.float32)
            await self._run(ApplyJob(self._model, plan, joined))
        except Exception:
            if len(stored) > 1:
                for change in stored:
                    await self._apply([change], chunk)
                return
            _LOG.exception("item change %d cannot be applied", stored[0].revision)
        self._applied()
        async with self._progress:
            self.revision = stored[-1].revision
            self._progress.notify_all()

    async def _run(self, job: EncodeJob | ApplyJob) -> Any:  # noqa: ANN401 - the answer that the job asks for
        return await self._jobs.submit(job, urgent=True)
