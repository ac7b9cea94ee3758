"""Micro-batching: one worker thread that takes together whatever waited while it was busy.

No artificial delay is added: an idle worker starts at once with a batch of one, a busy one finds a batch
when it is done. The event loop never runs the work itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")

_LOG = logging.getLogger(__name__)
_SMOOTHING: Final = 0.2
"""Weight of the newest batch in the running mean of batch times."""


class QueueFull(Exception):
    """More work waits than the queue may hold; `retry_seconds` estimates when there is room."""

    def __init__(self, retry_seconds: float) -> None:
        super().__init__(f"queue full, try again in {retry_seconds:.2f} s")
        self.retry_seconds = retry_seconds


@dataclass(eq=False)
class _Waiting(Generic[In, Out]):
    job: In
    future: asyncio.Future[Out]
    deadline: float | None
    """Event loop time after which nobody waits for the result."""


class Batcher(Generic[In, Out]):
    """Runs jobs in batches on one thread of its own; create and use it inside a running event loop."""

    def __init__(
        self,
        work: Callable[[Sequence[In]], Sequence[Out]],
        *,
        max_batch: int,
        max_queue: int,
        name: str,
    ) -> None:
        """Prepare an idle worker.

        Args:
            work: maps jobs to results of the same number and order; runs outside the event loop's thread.
            max_batch: most jobs per call of `work`.
            max_queue: most jobs waiting; beyond it `submit` raises QueueFull.
            name: of the thread, for logs and debuggers.
        """
        self._work = work
        self._max_batch = max_batch
        self._max_queue = max_queue
        self._queue: deque[_Waiting[In, Out]] = deque()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._runner: asyncio.Task[None] | None = None
        self._batch_seconds = 0.01
        self._closed = False

    def __len__(self) -> int:
        """Jobs waiting, without those being worked on."""
        return len(self._queue)

    async def submit(self, job: In, deadline: float | None = None, *, urgent: bool = False) -> Out:
        """Run one job and return its result.

        A job whose caller is cancelled, or whose `deadline` (event loop time) passes, is dropped unless
        its batch has already started.

        Args:
            job: what to do.
            deadline: event loop time after which nobody waits for the result; None waits for ever.
            urgent: put the job before those that wait, however many they are; for upkeep that requests depend
                on.

        Raises:
            QueueFull: too many jobs wait.
            TimeoutError: the deadline passed.
        """
        if self._closed:
            raise RuntimeError("the batcher is closed")
        if len(self._queue) >= self._max_queue and not urgent:
            batches = len(self._queue) / self._max_batch
            raise QueueFull(max(0.05, batches * self._batch_seconds))
        waiting = _Waiting[In, Out](job, asyncio.get_running_loop().create_future(), deadline)
        if urgent:
            self._queue.appendleft(waiting)
        else:
            self._queue.append(waiting)
        if self._runner is None:
            self._runner = asyncio.create_task(self._drain())
        try:
            async with asyncio.timeout_at(deadline):
                return await waiting.future
        except (TimeoutError, asyncio.CancelledError):
            with contextlib.suppress(ValueError):  # its batch has started
                self._queue.remove(waiting)  # or who has given up would keep others out
            raise

    async def close(self) -> None:
        """Finish what waits, then stop the thread."""
        self._closed = True
        if self._runner is not None:
            await self._runner
        self._executor.shutdown(wait=True)

    async def _drain(self) -> None:
        """Work until the queue is empty."""
        try:
            while batch := self._next_batch():
                started = time.perf_counter()
                await self._run(batch)
                elapsed = time.perf_counter() - started
                self._batch_seconds += _SMOOTHING * (elapsed - self._batch_seconds)
        finally:
            self._runner = None

    def _next_batch(self) -> list[_Waiting[In, Out]]:
        """Take the oldest jobs that somebody still waits for."""
        now = asyncio.get_running_loop().time()
        batch: list[_Waiting[In, Out]] = []
        while self._queue and len(batch) < self._max_batch:
            waiting = self._queue.popleft()
            expired = waiting.deadline is not None and waiting.deadline <= now
            if not waiting.future.done() and not expired:
                batch.append(waiting)
        return batch

    async def _run(self, batch: list[_Waiting[In, Out]]) -> None:
        """Run a batch; if it fails, run its jobs one by one so that only the one at fault fails."""
        loop = asyncio.get_running_loop()
        try:
            results = await loop.run_in_executor(self._executor, self._work, [w.job for w in batch])
            if len(results) != len(batch):
                raise RuntimeError(f"{len(results)} results for {len(batch)} jobs")
        except Exception as error:
            if len(batch) == 1:
                if not batch[0].future.done():
                    batch[0].future.set_exception(error)
                return
            _LOG.warning(
                "a batch of %d failed (%s); running its jobs one by one", len(batch), type(error).__name__
            )
            for waiting in batch:
                if not waiting.future.done():
                    await self._run([waiting])
            return
        for waiting, result in zip(batch, results, strict=True):
            if not waiting.future.done():
                waiting.future.set_result(result)
