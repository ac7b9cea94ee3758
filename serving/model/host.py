"""The served model: its queue, its updates, its replacement, and leases on it.

A model's process runs as long as there are leases on the model. The host holds one on the served model; a
request holds one while it uses the model. So a replaced model ends with the last request that began with it,
by reference counting.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final

import numpy as np

from conf.serving import ServeConfig
from ranking.milvus.status import EngineStatus
from ranking.types import History, Request
from serving.core.call_context import RECORD, Stage, Timeline
from serving.core.errors import not_ready
from serving.core.threads import limit_threads
from serving.model.engine_health import engine_values
from serving.model.event_updater import EventUpdater
from serving.model.execute_batch import execute_batch
from serving.model.interfaces import CLOSE_SECONDS, Answer, Job, LiveModel, Model, RecommendJob, SimilarJob
from serving.model.item_updater import ItemUpdater
from serving.model.served import Served
from serving.observability.metrics import Metrics, QueueMetrics
from serving.scheduling.batcher import Batcher
from serving.state.contracts.item_changes import ItemChanges
from serving.state.contracts.user_state import UserState

_LOG = logging.getLogger(__name__)
CURRENT_QUEUE: Final = "model"
"""Name of the current model's queue in metrics."""
_END_SECONDS: Final = CLOSE_SECONDS + 1
"""Longest wait for the end of the model's process when the host is closed."""
_END_POLL_SECONDS: Final = 0.02
_GATHER_SECONDS: Final = 0.005
"""Requests that arrive within this time of each other form a batch."""


class _HostedModel:
    """A model in the host: its newest state, what keeps it up to date, and the leases on it."""

    def __init__(
        self, live: LiveModel, derived: Served, item_updater: ItemUpdater, event_updater: EventUpdater
    ) -> None:
        """Begin with one lease, the host's own."""
        self.live = live
        self.item_updater = item_updater
        self.event_updater = event_updater
        self.leases = 1
        self._served = derived
        self._catalogue = live.current.catalogue

    @property
    def served(self) -> Served:
        """The newest state."""
        newest = self.live.current
        if newest.catalogue is not self._catalogue:
            self._served, self._catalogue = self._served.next(newest), newest.catalogue
        return self._served

    async def stop_updates(self) -> None:
        """Apply no more item changes and count no more events."""
        await self.item_updater.stop()
        await self.event_updater.stop()

    def release(self) -> None:
        """Release one lease; the last one closes the model, which ends its process."""
        self.leases -= 1
        if self.leases == 0:
            self.live.close()


class Lease:
    """Keeps the served model's process running until the end of an `async with` block.

    A replaced model is closed when its last lease is released. A lease does not protect from a crash of the
    process: requests to it fail as UNAVAILABLE.
    """

    __slots__ = ("_host", "_hosted")

    def __init__(self, host: ModelHost) -> None:
        """Prepare a lease on the model that is served when the block is entered."""
        self._host = host

    async def __aenter__(self) -> Served:
        """Return the newest state of the served model.

        Raises:
            ApiError: no model has been loaded yet.
        """
        self._hosted = self._host._now
        self._hosted.leases += 1
        return self._hosted.served

    async def __aexit__(self, *failure: object) -> None:
        self._hosted.release()


class ModelHost:
    """Owns the served model and the thread that runs it; create it inside a running event loop."""

    def __init__(
        self,
        changes: ItemChanges,
        state: UserState,
        config: ServeConfig,
        metrics: Metrics,
        name: str = CURRENT_QUEUE,
    ) -> None:
        """Prepare an empty host; `load` serves a model.

        Args:
            changes: item changes, applied to every model.
            state: recorded events since a model's data end, counted by every model.
            config: limits.
            metrics: for the model and its queue.
            name: of the queue in metrics; the model itself is reported by the host of the current model only.
        """
        self._changes = changes
        self._state = state
        self._config = config
        self._hosted: _HostedModel | None = None
        self._closed = False
        self.generation = 0
        """How many models have been served so far."""
        self._metrics = metrics
        self._name = name
        self._wanted_revision = 0
        """The newest revision that a request waits for."""
        self.jobs = Batcher[Job, Answer](
            execute_batch,
            max_batch=config.max_batch,
            max_queue=config.max_queue,
            name="model",
            limits=config.limits,
            on_batch=metrics.queue(name, lambda: len(self.jobs)).batch,
            prepare=lambda: limit_threads(config.threads),
            # With several workers, waiting would leave a worker's CPU idle.
            gather_seconds=_GATHER_SECONDS if config.workers == 1 else 0.0,
        )
        """The queue of the model's thread."""
        self._upkeep = ThreadPoolExecutor(1, "upkeep")
        self.loading = ThreadPoolExecutor(1, "loading")
        """The thread that prepares the next model, so that it does not delay requests."""
        if name != CURRENT_QUEUE:
            return
        metrics.watch_values(
            {
                "index_items": ("Items that can be recommended", self._alive),
                "item_changes_applied": ("Number of the last item change that lists know", self._revision),
                "item_changes_pending": ("Item changes that lists do not know yet", self._pending),
                "events_counted": ("Recorded events that the model has counted", self._counted),
                "events_of_unknown_items": ("Recorded events whose items were unknown", self._unknown),
                "events_behind_seconds": ("Since when recorded events may not be counted", self._behind),
                **engine_values(lambda: self.engine),
            }
        )

    @property
    def served(self) -> Served:
        """The newest state of the served model, for use before the next await; beyond that, lease it.

        Raises:
            ApiError: no model has been loaded yet.
        """
        return self._now.served

    def lease(self) -> Lease:
        """Return a lease on the served model: `async with host.lease() as served`."""
        return Lease(self)

    @property
    def live(self) -> LiveModel:
        """The served model."""
        return self._now.live

    @property
    def works(self) -> bool:
        """Whether lists can be made: not once the served model's process has ended."""
        return self._now.live.works

    @property
    def engine(self) -> EngineStatus | None:
        """State of the program that searches vectors; None where the model's process does."""
        return None if self._hosted is None else self._hosted.live.engine

    @property
    def revision(self) -> int:
        """The last item change that lists reflect."""
        return self._now.item_updater.revision

    def _alive(self) -> float:
        return 0 if self._hosted is None else self._hosted.served.model.catalogue.alive_count

    def _revision(self) -> float:
        return 0 if self._hosted is None else self.revision

    def _pending(self) -> float:
        return max(0, self._wanted_revision - self._revision())

    def _counted(self) -> float:
        return 0 if self._hosted is None else self._hosted.event_updater.counted

    def _unknown(self) -> float:
        return 0 if self._hosted is None else self._hosted.event_updater.unknown

    def _behind(self) -> float:
        return 0 if self._hosted is None else self._hosted.event_updater.behind_seconds

    @property
    def _now(self) -> _HostedModel:
        if self._hosted is None:
            raise not_ready()
        return self._hosted

    def queue_metrics(self, name: str, length: Callable[[], float]) -> QueueMetrics:
        """Return the metrics of another queue."""
        return self._metrics.queue(name, length)

    def announce(self) -> None:
        """Announce a request, or refuse it if it would wait too long.

        Raises:
            QueueFullError: the request is refused.
        """
        self.jobs.admit(announce=True)

    def withdraw(self) -> None:
        """Take back the announcement of a request that another host answers."""
        self.jobs.withdraw()

    def admit(self, deadline: float | None) -> None:
        """Refuse a request that would wait too long.

        Raises:
            QueueFullError: the request is refused.
            TimeoutError: the deadline (event loop time) passed.
        """
        self.jobs.admit(deadline)

    async def submit(
        self, job: RecommendJob | SimilarJob, deadline: float | None, background: bool = False
    ) -> Answer:
        """Run a job, and add its stages to the current call's record.

        A background job runs when no other is queued, and is not recorded: a stream has millions.

        Raises:
            QueueFullError: the job was refused or shed.
            TimeoutError: the deadline (event loop time) passed.
        """
        record = RECORD.get()
        if record is None or background:
            return await self.jobs.submit(job, deadline, "background" if background else "usual")
        timeline, submitted = Timeline(), time.perf_counter()
        try:
            return await self.jobs.submit(replace(job, timeline=timeline), deadline)
        finally:
            record.stages.append(Stage("queue", submitted, timeline.began or time.perf_counter()))
            record.stages.extend(timeline.stages)

    async def load(self, live: LiveModel, derived: Served) -> None:
        """Bring a model up to date, warm it up, and serve it in place of the former one.

        Requests with a lease on the former model still use it. If anything fails, the former model stays.

        Args:
            live: the model; the host owns it from here on, and closes it on failure.
            derived: computed from its current state, outside the event loop.

        Raises:
            StateUnavailableError: item changes or events could not be read.
        """
        config = self._config
        items = ItemUpdater(live, self._changes, self.jobs, self._upkeep, config.item_poll_seconds)
        events = EventUpdater(live, self._state, self.jobs, config.event_poll_seconds)
        hosted = _HostedModel(live, derived, items, events)
        try:
            await items.prepare(self.loading)
            await events.prepare(self.loading)
            await self._warm_up(live.current)
            while self._hosted is not None and items.revision < self.revision:
                # Changes acknowledged in the meantime.
                await items.prepare(self.loading)
            await events.prepare(self.loading)  # events recorded in the meantime
        except BaseException:
            hosted.release()
            raise
        _warn_of_type_conflicts(live.current)
        former, self._hosted = self._hosted, hosted
        self.generation += 1
        model = live.current
        if self._name == CURRENT_QUEUE:
            self._metrics.model(model.version, model.device, model.data_end, derived.since_us / 1e6)
        items.start()
        events.start()
        if former is not None:
            try:
                await former.stop_updates()
            finally:
                former.release()

    async def wait_for_revision(
        self, revision: int, deadline: float | None = None, at_once: bool = False
    ) -> None:
        """Return once lists reflect a revision of the item changes.

        Args:
            revision: the revision.
            deadline: event loop time.
            at_once: see `ItemUpdater.wait_for_revision`.

        Raises:
            TimeoutError: the deadline (event loop time) passed before.
        """
        self._wanted_revision = max(self._wanted_revision, revision)
        while self.revision < revision:
            if self._closed:
                raise not_ready()
            # Returns early if the model is replaced.
            await self._now.item_updater.wait_for_revision(revision, deadline, at_once)

    def poll_events(self) -> None:
        """Poll for recorded events at once."""
        self._now.event_updater.poll_now()

    def forget_queue(self) -> None:
        """Drop the series of the queue, whose name another host may have from then on."""
        self._metrics.forget_queue(self._name)

    async def close(self) -> None:
        """Finish queued work, stop the threads, and release the host's own lease.

        The model's process has ended then, unless a request still uses it: a server that is the first process
        of a container kills it by its own end, before it has released what it holds in other programs.
        """
        self._closed = True
        hosted, self._hosted = self._hosted, None
        if hosted is not None:
            await hosted.stop_updates()
        await self.jobs.close()
        await asyncio.to_thread(self._upkeep.shutdown)  # its work may take seconds, and other models serve
        self.loading.shutdown(wait=False)
        if hosted is not None:
            hosted.release()
            if hosted.leases == 0:
                await end_of(hosted.live, _END_SECONDS)

    async def _warm_up(self, model: Model) -> None:
        """Make one list and one similarity search, so that no request waits for first-time work."""
        no_history = History(np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros(0, np.int64))
        request = Request(history=no_history, now=max(model.data_end, 1), k=min(10, len(model.catalogue)))
        await self.jobs.submit(RecommendJob(model, request, "warm up"), lane="urgent")
        await self.jobs.submit(SimilarJob(model, "warm up", 1, np.zeros(0, np.int32), None), lane="urgent")


async def end_of(model: LiveModel, seconds: float) -> None:
    """Wait until the process of a closed model has ended, for some time at most."""
    deadline = time.monotonic() + seconds
    while model.works and time.monotonic() < deadline:  # noqa: ASYNC110 - a process has no event of the loop
        await asyncio.sleep(_END_POLL_SECONDS)


def _warn_of_type_conflicts(model: Model) -> None:
    """Log the declared attributes that a model has with another type."""
    for name, declared in model.catalogue.overruled.items():
        counts = model.catalogue.kinds.get(name)
        _LOG.warning(
            "attribute '%s' was declared as %s; model %s has it as %s, which counts",
            name,
            declared.name,
            model.version,
            "a type that filters cannot use" if counts is None else counts.name,
        )
