"""Micro-batching under a load policy: when a job runs, with which others, and whether it runs at all.

Described in docs/load.md; after CoDel and adaptive LIFO (Maurer, "Fail at Scale", ACM Queue 2015).
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeAlias, TypeVar, cast, get_args

from conf.serving import LimitsConfig

In = TypeVar("In")
Out = TypeVar("Out")
Clock: TypeAlias = Callable[[], float]
_LOG = logging.getLogger(__name__)
Lane = Literal["urgent", "usual", "background"]
"""Urgent jobs, such as upkeep, run first, background jobs when no other waits; both are always admitted."""
INTERVAL_SECONDS: Final = 0.1
"""CoDel's interval, a round trip of most callers; older announcements are dropped."""
CALM_SECONDS: Final = 1.0
"""An overload ends when no job was refused for ten intervals; refused callers should stay away as long."""
SMOOTHING: Final = 0.2
"""Weight of the newest batch in the moving average of a job's cost."""
SMALLEST_BATCH: Final = 16
"""Jobs that a batch may always have. They share its fixed cost, on a busy machine that of eight lists:
smaller batches make jobs more expensive, which would make batches smaller still."""
BACKGROUND_BATCH: Final = 8
"""Most background jobs of a batch: half of the smallest, since a job that arrives meanwhile waits for it."""
SOONEST_RETRY_SECONDS: Final = 0.05
"""Shortest retry delay of a refusal: about one batch."""


class QueueFullError(Exception):
    """A job was refused: its `reason` is `queue_full`, `queue_wait` or `deadline` (which would pass)."""

    def __init__(self, retry_seconds: float, reason: str = "queue_full") -> None:
        super().__init__(f"{reason}, try again in {retry_seconds:.2f} s")
        self.retry_seconds, self.reason = max(SOONEST_RETRY_SECONDS, retry_seconds), reason


@dataclass(eq=False, frozen=True)
class QueuedJob(Generic[In]):
    """A job, the time it was added, and its deadline (None: none)."""

    job: In
    lane: Lane
    since: float
    deadline: float | None


class LoadPolicy(Generic[In]):
    """The queue of a worker that runs jobs in batches; not to be used by two threads at a time."""

    def __init__(self, max_batch: int, max_queue: int, limits: LimitsConfig | None, clock: Clock) -> None:
        """Begin empty and idle; without `limits` only the number of waiting jobs is bounded."""
        self._max_batch, self._max_queue, self._limits, self._clock = max_batch, max_queue, limits, clock
        self._lanes: dict[Lane, deque[QueuedJob[In]]] = {lane: deque() for lane in get_args(Lane)}
        self._announced: list[float] = []  # when jobs were announced that have not been added yet
        self._running: list[QueuedJob[In]] = []
        self._began = 0.0  # when the running batch began
        self._job_seconds = 0.0  # running mean of a job's share of its batch's time; 0 before the first batch
        self._turn = 0  # jobs of the last batch and of the queue at its end, whose callers return together
        self._above_since = math.inf  # since when expected waits have been above the target
        self._overload_until = 0.0

    def __len__(self) -> int:
        """Number of queued jobs, without background jobs and the running batch."""
        return len(self._lanes["urgent"]) + len(self._lanes["usual"])

    @property
    def empty(self) -> bool:
        """Whether no job is queued, not even a background job."""
        return not any(self._lanes.values())

    @property
    def batch_size(self) -> int:
        """Most jobs of the next batch: what fits its time budget."""
        if self._limits is None or not self._job_seconds:
            return self._max_batch
        return min(max(int(self._limits.batch_seconds / self._job_seconds), SMALLEST_BATCH), self._max_batch)

    @property
    def gathering(self) -> bool:
        """Whether the next batch should wait: callers that got answers together send requests together."""
        return not self._lanes["urgent"] and 0 < len(self) < min(self._turn, self.batch_size)

    def expected_wait(self, waiting: int) -> float:
        """Return the seconds until a job behind `waiting` others runs; a late batch takes as long again."""
        left = self._began + len(self._running) * self._job_seconds - self._clock()
        rest = abs(left) if self._running and self._job_seconds else 0.0
        return rest + waiting // self.batch_size * self.batch_size * self._job_seconds

    def admit(self, deadline: float | None = None, announce: bool = False) -> None:
        """Raise QueueFullError unless a job is admitted; `announce` lets it count as waiting until added."""
        self._announced = [since for since in self._announced if since >= self._clock() - INTERVAL_SECONDS]
        waiting = len(self) + (len(self._announced) if announce else 0)
        if reason := self._reason(waiting, deadline):
            raise self.refusal(reason)
        if announce:
            self._announced.append(self._clock())

    def withdraw(self) -> None:
        """Take back an announcement."""
        del self._announced[:1]

    def refusal(self, reason: str = "queue_wait") -> QueueFullError:
        """Return the error of a job that is refused now."""
        calm = CALM_SECONDS * (self._clock() < self._overload_until)
        return QueueFullError(max(calm, self.expected_wait(len(self))), reason)

    def _reason(self, waiting: int, deadline: float | None) -> str:
        """Return why a job behind `waiting` others is refused, empty if it is not."""
        now, limits = self._clock(), self._limits
        if waiting >= self._max_queue or limits is None:
            return "queue_full" if waiting >= self._max_queue else ""
        wait, full = self.expected_wait(waiting), now < self._overload_until and waiting >= self.batch_size
        self._above_since = min(self._above_since, now) if wait > limits.standing_queue_seconds else math.inf
        if full or now - self._above_since >= INTERVAL_SECONDS:
            self._overload_until = now + CALM_SECONDS
        if full or wait > limits.max_queue_seconds:
            return "queue_wait"
        end = now + wait + self.batch_size * self._job_seconds
        # Without jobs ahead it is not load that makes the result late: run the job anyway.
        return "deadline" if waiting and deadline is not None and now < deadline < end else ""

    def add(self, job: In, deadline: float | None = None, lane: Lane = "usual") -> QueuedJob[In]:
        """Put a job into the queue, or raise QueueFullError."""
        if lane == "usual":
            self.admit(deadline)
            del self._announced[:1]
        queued = QueuedJob(job, lane, self._clock(), deadline)
        self._lanes[lane].append(queued)
        return queued

    def remove(self, queued: QueuedJob[In]) -> None:
        """Take a job out of the queue, unless its batch has begun."""
        if queued in self._lanes[queued.lane]:
            self._lanes[queued.lane].remove(queued)

    def next_batch(self) -> tuple[list[QueuedJob[In]], list[QueuedJob[In]]]:
        """Begin a batch; return its jobs, none of which is past its deadline, and those that are shed."""
        now, size, shed = self._clock(), self.batch_size, list[QueuedJob[In]]()
        for lane, jobs in self._lanes.items():
            self._lanes[lane] = deque(job for job in jobs if job.deadline is None or job.deadline > now)
        urgent, usual, background = self._lanes.values()
        capacity = size if now < self._overload_until else self._max_queue
        overdue = now - self._limits.max_queue_seconds if self._limits else -math.inf
        while usual and (len(usual) > capacity or usual[0].since < overdue):
            shed.append(usual.popleft())
        batch = [urgent.popleft() for _ in range(min(size, len(urgent)))]
        batch += [usual.popleft() for _ in range(min(size - len(batch), len(usual)))]
        batch = batch or [background.popleft() for _ in range(min(BACKGROUND_BATCH, len(background)))]
        self._running, self._began = batch, now
        return batch, shed

    def finished(self) -> bool:
        """End the batch, update the cost of a usual job, and return whether a full batch is queued."""
        batch, self._running, self._turn = self._running, [], 0
        if batch and all(queued.lane == "usual" for queued in batch):
            newest = (self._clock() - self._began) / len(batch)
            self._job_seconds += (newest - self._job_seconds) * (SMOOTHING if self._job_seconds else 1.0)
            self._turn = len(batch) + len(self) if len(batch) > 1 else 0
        return len(self) >= self.batch_size


_Entry: TypeAlias = tuple[In, asyncio.Future[Out]]
_Outcome: TypeAlias = tuple[QueuedJob[_Entry[In, Out]], Out | None, Exception | None]


class Batcher(Generic[In, Out]):
    """Runs jobs in batches on one thread of its own; create and use it inside a running event loop."""

    def __init__(
        self,
        work: Callable[[Sequence[In]], Sequence[Out]],
        *,
        max_batch: int,
        max_queue: int,
        name: str,
        limits: LimitsConfig | None = None,
        on_batch: Callable[[Sequence[float], float], None] | None = None,
        prepare: Callable[[], None] | None = None,
        gather_seconds: float = 0.0,
    ) -> None:
        """Prepare an idle worker.

        Args:
            work: maps jobs to results of the same number and order, in the thread `name`.
            max_batch: most jobs per call of `work`.
            max_queue: most jobs that wait.
            name: of the thread, for logs and debuggers.
            limits: of waits and batches; None for no limits.
            on_batch: called after every batch with the seconds that each job waited and that the work took.
            prepare: called once by the thread, before its first batch.
            gather_seconds: pause in arrivals that ends gathering, see `LoadPolicy.gathering`.
        """
        self._work, self._on_batch, self._gather_seconds = work, on_batch, gather_seconds
        self._policy = LoadPolicy[_Entry[In, Out]](max_batch, max_queue, limits, time.monotonic)
        self._lock = threading.Lock()  # of the policy, which the event loop and the thread share
        self._loop = asyncio.get_running_loop()
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name, initializer=prepare)
        self._starting: asyncio.Handle | None = None
        self._closed = self.busy = False

    def __len__(self) -> int:
        """Number of queued jobs, without background jobs and the running batch."""
        return len(self._policy)

    def admit(self, deadline: float | None = None, announce: bool = False) -> None:
        """Raise QueueFullError for a job that `submit` would refuse; see `LoadPolicy.admit`."""
        with self._lock:
            self._policy.admit(deadline, announce)

    def withdraw(self) -> None:
        """Take back an announced job, which another worker runs."""
        with self._lock:
            self._policy.withdraw()

    async def submit(self, job: In, deadline: float | None = None, lane: Lane = "usual") -> Out:
        """Run a job and return its result.

        A job whose caller is cancelled, or whose `deadline` passes, is dropped unless its batch has begun.

        Raises:
            QueueFullError: the job was not admitted, or shed.
            TimeoutError: the deadline (event loop time) has passed.
        """
        if self._closed:
            raise RuntimeError("the batcher is closed")
        future: asyncio.Future[Out] = self._loop.create_future()
        with self._lock:
            queued = self._policy.add((job, future), deadline, lane)
        self._start_soon()
        try:
            async with asyncio.timeout_at(deadline):
                return await future
        finally:
            if future.cancelled():
                with self._lock:
                    self._policy.remove(queued)

    async def close(self) -> None:
        """Finish queued jobs, then stop the thread."""
        self._closed = True
        while self.busy or not self._policy.empty:
            self._start()
            await self._loop.run_in_executor(self._executor, time.sleep, 0)  # returns after the running batch
        self._executor.shutdown(wait=True)

    def _start_soon(self) -> None:
        """Start an idle thread; while gathering, after a pause in arrivals."""
        if self.busy:
            return
        if self._starting is not None:
            self._starting.cancel()
        wait = self._gather_seconds if self._policy.gathering else 0.0
        self._starting = self._loop.call_later(wait, self._start)

    def _start(self) -> None:
        if not self.busy and not self._policy.empty:
            self.busy = True
            self._executor.submit(self._run)

    def _run(self) -> None:
        """Run batches in the thread while full ones are queued, which spares the busy event loop."""
        while self.busy:
            with self._lock:
                batch, shed = self._policy.next_batch()
                done: list[_Outcome[In, Out]] = [(job, None, self._policy.refusal()) for job in shed]
            began = time.monotonic()
            outcomes = self._outcomes([queued.job[0] for queued in batch])
            done += [(job, *outcome) for job, outcome in zip(batch, outcomes, strict=True)]
            if batch and self._on_batch is not None:
                self._on_batch([began - queued.since for queued in batch], time.monotonic() - began)
            with self._lock:
                self.busy = self._policy.finished()
            self._loop.call_soon_threadsafe(self._deliver, done)
            del batch, shed, outcomes, done  # the traceback of an error refers to this frame

    def _outcomes(self, jobs: list[In]) -> list[tuple[Out | None, Exception | None]]:
        """Run the work; if it fails, job by job, so that only the faulty job fails."""
        try:
            results = self._work(jobs) if jobs else []
            return [(result, None) for _, result in zip(jobs, results, strict=True)]
        except Exception as error:
            if len(jobs) == 1:
                return [(None, error)]
            _LOG.warning("a batch of %d failed (%s); its jobs run alone", len(jobs), type(error).__name__)
        return [outcome for job in jobs for outcome in self._outcomes([job])]

    def _deliver(self, done: Sequence[_Outcome[In, Out]]) -> None:
        """Deliver outcomes to callers, in the event loop."""
        for queued, result, error in done:
            future = queued.job[1]
            if error is not None and not future.done():
                future.set_exception(error)
            elif not future.done():
                future.set_result(cast(Out, result))
        self._start_soon()
