"""Micro-batching: one worker thread that takes together whatever waited while it was busy.

An idle worker starts at once with a batch of one, a busy one finds a batch when it is done. Who is asked by
several at a time may wait a moment for those that are just coming: those answered together ask together
again, and while the event loop reads them it holds the interpreter's lock that the work wants, too. The event
loop never runs the work itself. Jobs that would wait too long are refused when they come, while there is
still time to ask another server.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar, cast

from serving.scheduling.load_shedding import CALM_SECONDS, LoadShedder, WaitLimits

In = TypeVar("In")
Out = TypeVar("Out")

_LOG = logging.getLogger(__name__)
BACKGROUND_BATCH: Final = 8
"""Most background jobs taken together: a request that comes meanwhile waits for no more than these."""
_SOONEST_RETRY_SECONDS: Final = 0.05
_GATHER_MOST: Final = 5
"""How many times as long as for one a batch waits for all that are coming."""
_TOGETHER_PATIENCE: Final = 3
"""How many times as long it waits where everybody asks together."""
_COMING_SECONDS: Final = 0.1
"""How long a job is counted with that was announced and does not come."""


class QueueFullError(Exception):
    """More work waits than can be done in time; `retry_seconds` estimates when there is room."""

    def __init__(self, retry_seconds: float, reason: str = "queue_full") -> None:
        super().__init__(f"{reason}, try again in {retry_seconds:.2f} s")
        self.retry_seconds = max(_SOONEST_RETRY_SECONDS, retry_seconds)
        self.reason = reason
        """`queue_full`: too many wait; `queue_wait`: for too long; `deadline`: too long for this caller."""


class BatchWatch(Protocol):
    """Is told of every batch; for metrics."""

    def batch(self, waits: Sequence[float], seconds: float) -> None:
        """Note a batch: how long each of its jobs waited, and how long the work took."""


@dataclass(eq=False)
class _Waiting(Generic[In, Out]):
    job: In
    future: asyncio.Future[Out]
    deadline: float | None
    """Event loop time after which nobody waits for the result."""
    since: float
    """Event loop time of its arrival."""
    urgent: bool


@dataclass(frozen=True)
class _Batch(Generic[In, Out]):
    jobs: list[_Waiting[In, Out]]
    results: asyncio.Future[list[Out | None]]
    """One per job; None for those that nobody waited for any more."""


class Batcher(Generic[In, Out]):
    """Runs jobs in batches on one thread of its own; create and use it inside a running event loop."""

    def __init__(
        self,
        work: Callable[[Sequence[In]], Sequence[Out]],
        *,
        max_batch: int,
        max_queue: int,
        name: str,
        limits: WaitLimits | None = None,
        watch: BatchWatch | None = None,
        prepare: Callable[[], None] | None = None,
        gather_seconds: float = 0.0,
    ) -> None:
        """Prepare an idle worker.

        Args:
            work: maps jobs to results of the same number and order; runs outside the event loop's thread.
            max_batch: most jobs per call of `work`; fewer where `limits` want shorter batches.
            max_queue: most jobs waiting; beyond it `submit` raises QueueFull.
            name: of the thread, for logs and debuggers.
            limits: how long jobs may wait; None for as long as it takes.
            watch: told of every batch.
            prepare: called once by the thread, before its first batch.
            gather_seconds: after a batch of several, the next one begins as soon as there are as many as were
                answered or waiting when it ended, or when it is full, or when nobody has come for so long
                (three times as long where they have just come together), or after five times as long. After
                a single job nobody waits.
        """
        self._work = work
        self._max_queue = max_queue
        self._longest = None if limits is None else limits.burst_seconds
        self._watch = watch
        self._gather_seconds = gather_seconds
        self._expected = 0
        """How many the next batch waits for: those of the last, if several, and who came meanwhile."""
        self._together = False
        """Whether all who were expected came before the last batch began, and nobody else while it ran."""
        self._gathering: asyncio.Event | None = None
        """Ends the wait for them."""
        self._newest = 0.0
        """Event loop time at which somebody came last, or was answered."""
        self._queue: deque[_Waiting[In, Out]] = deque()
        self._background: deque[_Waiting[In, Out]] = deque()
        self._coming: deque[float] = deque()
        """Event loop times of the jobs that were announced and have not come, oldest first."""
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=prepare)
        self._runner: asyncio.Task[None] | None = None
        self._busy = False
        """Whether a batch is being worked on."""
        self._ahead: _Batch[In, Out] | None = None
        """The next batch, which the thread goes on with."""
        self._pressure = LoadShedder(max_batch, limits)
        self._expiry: asyncio.TimerHandle | None = None
        self._closed = False

    def __len__(self) -> int:
        """Jobs waiting, without those being worked on and those in the background."""
        return len(self._queue) + len(self._handed_over())

    def expect(self) -> None:
        """Announce a job that is to be submitted once it has been read, and refuse it before that.

        Whoever is on the way will be waiting: counting them, too, keeps work from being done for many that
        are refused in the end.

        Raises:
            QueueFull: too many jobs wait, or their work takes too long.
        """
        now = asyncio.get_running_loop().time()
        while self._coming and self._coming[0] < now - _COMING_SECONDS:
            self._coming.popleft()
        self._admit(len(self) + len(self._coming), None)
        self._coming.append(now)
        self._newest = now

    def admit(self, deadline: float | None = None) -> None:
        """Refuse, before anything is done for it, a job that `submit` would refuse.

        Raises:
            QueueFull: too many jobs wait, or their work takes too long.
        """
        try:
            self._admit(len(self), deadline)
        except QueueFullError:
            self._come()
            raise

    def _come(self) -> None:
        """Count one of the announced jobs no longer."""
        if self._coming:
            self._coming.popleft()

    def _admit(self, waiting: int, deadline: float | None) -> None:
        now = asyncio.get_running_loop().time()
        if waiting >= self._max_queue:
            raise QueueFullError(self._pressure.wait_seconds(now, waiting))
        if self._longest is None:
            return
        if self._pressure.too_many(now, waiting):
            wait = self._pressure.wait_seconds(now, waiting)
            if self._pressure.refused(now, waiting):
                self._thin_out()
            raise self._queue_wait(now, wait)
        # Without anybody waiting it is not the load that makes the answer late: then it is worth a try.
        if waiting and deadline is not None:
            wait = self._pressure.wait_seconds(now, waiting)
            if now < deadline < now + wait + self._pressure.batch_seconds:
                raise QueueFullError(wait, "deadline")

    async def submit(
        self, job: In, deadline: float | None = None, *, urgent: bool = False, background: bool = False
    ) -> Out:
        """Run one job and return its result.

        A job whose caller is cancelled, or whose `deadline` (event loop time) passes, is dropped unless
        its batch has already started.

        Args:
            job: what to do.
            deadline: event loop time after which nobody waits for the result; None waits for ever.
            urgent: put the job before those that wait, however many they are; for upkeep that requests depend
                on.
            background: run the job only when no other waits; whoever submits such jobs bounds their number.

        Raises:
            QueueFull: too many jobs wait, their work takes too long, or the job has waited too long itself.
            TimeoutError: the deadline passed.
        """
        if self._closed:
            raise RuntimeError("the batcher is closed")
        if not (urgent or background):
            self.admit(deadline)
            self._come()
        loop = asyncio.get_running_loop()
        waiting: _Waiting[In, Out] = _Waiting(
            job, loop.create_future(), deadline, loop.time(), urgent or background
        )
        late = None if deadline is None else loop.call_at(deadline, _too_late, waiting.future)
        self._newest = waiting.since
        if urgent:
            self._queue.appendleft(waiting)
        elif background:
            self._background.append(waiting)
        else:
            self._queue.append(waiting)
            self._watch_the_oldest()
            if self._gathering is not None and len(self._queue) >= self._expected:
                self._gathering.set()
        if self._runner is None:
            self._runner = asyncio.create_task(self._drain())
        self._get_ready()
        try:
            return await waiting.future
        except (TimeoutError, asyncio.CancelledError):
            with contextlib.suppress(ValueError):  # its batch has started
                self._queue.remove(waiting)  # or who has given up would keep others out
            raise
        finally:
            if late is not None:
                late.cancel()

    async def close(self) -> None:
        """Finish what waits, then stop the thread."""
        self._closed = True
        if self._runner is not None:
            await self._runner
        if self._expiry is not None:
            self._expiry.cancel()
        self._executor.shutdown(wait=True)

    async def _drain(self) -> None:
        """Work until the queue is empty."""
        loop = asyncio.get_running_loop()
        try:
            while running := self._ahead or self._begin(await self._gathered()):
                batch, self._ahead = running.jobs, None
                began = loop.time()
                self._pressure.began(began, len(batch), len(self._queue))
                self._busy = True
                self._get_ready()
                await self._finish(running)
                self._busy = False
                self._newest = ended = loop.time()
                self._together = 0 < self._expected <= len(batch) and not len(self)
                usual = not any(waiting.urgent for waiting in batch)
                self._expected = len(batch) + len(self) if usual and len(batch) > 1 else 0
                self._pressure.ended(ended, usual=usual)
                if self._watch is not None:
                    self._watch.batch([began - waiting.since for waiting in batch], ended - began)
        finally:
            self._runner, self._busy = None, False

    def _handed_over(self) -> list[_Waiting[In, Out]]:
        """Return the jobs of the next batch that somebody still waits for."""
        jobs = [] if self._ahead is None else self._ahead.jobs
        return [waiting for waiting in jobs if not waiting.future.done()]

    def _get_ready(self) -> None:
        """Hand over the next batch while one is being worked on, once it is as large as it may be.

        Where the event loop has much to do, the work would otherwise wait for it after every batch.
        """
        if self._busy and self._ahead is None and len(self._queue) >= self._pressure.batch_size:
            self._ahead = self._begin(self._next_batch())

    def _begin(self, jobs: list[_Waiting[In, Out]]) -> _Batch[In, Out] | None:
        """Have the thread work on a batch as soon as it has nothing else to do."""
        if not jobs:
            return None
        loop = asyncio.get_running_loop()
        return _Batch(jobs, loop.run_in_executor(self._executor, self._work_on, jobs))

    def _work_on(self, jobs: list[_Waiting[In, Out]]) -> list[Out | None]:
        """Work on those that somebody still waits for, in the thread."""
        left = [place for place, waiting in enumerate(jobs) if not waiting.future.done()]
        results: list[Out | None] = [None] * len(jobs)
        if left:
            made = self._work([jobs[place].job for place in left])
            if len(made) != len(left):
                raise RuntimeError(f"{len(made)} results for {len(left)} jobs")
            for place, result in zip(left, made, strict=True):
                results[place] = result
        return results

    async def _gathered(self) -> list[_Waiting[In, Out]]:
        """Take the next batch, once those that are just coming have joined it."""
        loop = asyncio.get_running_loop()
        patience = self._gather_seconds * (_TOGETHER_PATIENCE if self._together else 1)
        latest = loop.time() + _GATHER_MOST * self._gather_seconds
        while 0 < len(self._queue) < min(self._expected, self._pressure.batch_size):
            now = loop.time()
            until = min((now if self._coming else self._newest) + patience, latest)
            if until <= now or self._queue[0].urgent or self._closed:
                break
            self._gathering = asyncio.Event()
            timer = loop.call_at(until, self._gathering.set)
            await self._gathering.wait()
            timer.cancel()
            late = loop.time() - until
            if late > patience / 4:  # whoever came while the event loop stood still has not been seen yet
                self._newest, latest = loop.time(), latest + late
        return self._next_batch()

    def _next_batch(self) -> list[_Waiting[In, Out]]:
        """Take the oldest jobs that somebody still waits for; those of the background in want of others."""
        most = self._pressure.batch_size
        return self._take(self._queue, most) or self._take(self._background, min(most, BACKGROUND_BATCH))

    def _take(self, queue: deque[_Waiting[In, Out]], most: int) -> list[_Waiting[In, Out]]:
        now = asyncio.get_running_loop().time()
        batch: list[_Waiting[In, Out]] = []
        while queue and len(batch) < most:
            waiting = queue.popleft()
            expired = waiting.deadline is not None and waiting.deadline <= now
            if not waiting.future.done() and not expired:
                batch.append(waiting)
        return batch

    def _watch_the_oldest(self) -> None:
        """See to it that nobody waits longer than allowed, even where a batch takes for ever."""
        if self._longest is None or self._expiry is not None:
            return
        oldest = next((waiting for waiting in self._queue if not waiting.urgent), None)
        if oldest is not None:
            loop = asyncio.get_running_loop()
            self._expiry = loop.call_at(oldest.since + self._longest, self._expire)

    def _expire(self) -> None:
        """Refuse those that have waited too long."""
        self._expiry = None
        assert self._longest is not None
        since = asyncio.get_running_loop().time() - self._longest
        self._refuse([w for w in self._queue if w.since <= since and not w.urgent])

    def _thin_out(self) -> None:
        """Refuse all but the next batch, and of these the oldest: they are late whatever becomes of them."""
        waiting = [*self._handed_over(), *self._queue]
        self._refuse([w for w in waiting if not w.urgent][: -self._pressure.batch_size])

    def _refuse(self, jobs: Sequence[_Waiting[In, Out]]) -> None:
        """Take jobs out of the queue and tell their callers."""
        now = asyncio.get_running_loop().time()
        refused = {id(waiting) for waiting in jobs}
        self._queue = deque(waiting for waiting in self._queue if id(waiting) not in refused)
        wait = self._pressure.wait_seconds(now, len(self._queue))
        for waiting in jobs:
            if not waiting.future.done():
                waiting.future.set_exception(self._queue_wait(now, wait))
        self._watch_the_oldest()

    def _queue_wait(self, now: float, wait: float) -> QueueFullError:
        """Return the refusal of a job that would have to wait; in an overload for longer than that."""
        return QueueFullError(
            max(wait, CALM_SECONDS) if self._pressure.overloaded(now) else wait, "queue_wait"
        )

    async def _finish(self, batch: _Batch[In, Out]) -> None:
        """Wait for a batch; if it fails, run its jobs one by one so that only the one at fault fails."""
        try:
            results = await batch.results
        except Exception as error:
            if len(batch.jobs) == 1:
                if not batch.jobs[0].future.done():
                    batch.jobs[0].future.set_exception(error)
                return
            _LOG.warning(
                "a batch of %d failed (%s); running its jobs one by one",
                len(batch.jobs),
                type(error).__name__,
            )
            for waiting in batch.jobs:
                alone = None if waiting.future.done() else self._begin([waiting])
                if alone is not None:
                    await self._finish(alone)
            return
        for waiting, result in zip(batch.jobs, results, strict=True):
            if not waiting.future.done():
                waiting.future.set_result(cast(Out, result))


def _too_late(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
