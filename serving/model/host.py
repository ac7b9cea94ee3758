"""The model that is being served: its thread, its items kept up to date, and its replacement."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from conf.serving import ServeConfig
from features.data.dataset import BoolArray
from features.text.item_text import TextTemplate
from ranking.catalogue.attribute_codes import ValueCodes
from ranking.catalogue.filter_language import AttributeKind, MaskCache
from ranking.catalogue.item_order import ItemOrder
from ranking.types import History, Request
from serving.core.call_context import RECORD, Stage, Timeline
from serving.core.errors import not_ready
from serving.core.threads import limit_threads
from serving.model.event_updater import EventUpdater
from serving.model.execute_batch import run_jobs
from serving.model.interfaces import Answer, Job, LiveModel, Model, RecommendJob, SimilarJob
from serving.model.item_cards import ItemCards
from serving.model.item_updater import ItemUpdater
from serving.model.shown_items import ShownItems
from serving.observability.metrics import Metrics, QueueMetrics
from serving.scheduling.batcher import Batcher
from serving.scheduling.load_shedding import WaitLimits
from serving.state.contracts.item_changes import ItemChanges
from serving.state.contracts.user_state import UserState

_LOG = logging.getLogger(__name__)
_MODEL_TEXT_CHARS: Final = 1000
"""Raw item text is cut to this many characters where the model does not say how long its texts were."""

_GATHER_SECONDS: Final = 0.002
"""Requests that come within so little time of each other are answered together."""


@dataclass(frozen=True)
class Served:
    """One state of a model and what is derived from its items; a request uses one from beginning to end."""

    model: Model
    cards: ItemCards
    shown: ShownItems
    masks: MaskCache
    order: ItemOrder
    """The items in the order of their ids."""
    codes: ValueCodes
    """Of the attributes that caps count; looks after itself in every state."""
    attributes: dict[str, AttributeKind]
    diversity: float
    """MMR trade-off of requests that set none."""
    template: TextTemplate
    """What texts of items are made from; of a model that does not say, nothing."""
    text_chars: int
    """Length to which the texts that the model learnt from were cut."""
    since_us: int
    """When this model (not this state of it) was loaded, microseconds since 1970."""

    @classmethod
    def of(cls, model: Model) -> Served:
        """Derive everything from a model's items; takes a second for a million of them."""
        return cls(
            model=model,
            cards=ItemCards(model.catalogue),
            shown=ShownItems(model.catalogue),
            masks=MaskCache(),
            order=ItemOrder(),
            codes=ValueCodes(),
            attributes=model.catalogue.kinds,
            diversity=float(model.manifest.get("rerank", {}).get("diversity", 0.0)),
            template=_template(model),
            text_chars=int(model.manifest.get("template", {}).get("max_text_chars", _MODEL_TEXT_CHARS)),
            since_us=time.time_ns() // 1000,
        )

    def next(self, model: Model) -> Served:
        """Return what is served once the same model has a new state."""
        self.shown.extend(model.catalogue)
        if model.catalogue.declared is not self.model.catalogue.declared:
            return replace(self, model=model, attributes=model.catalogue.kinds)
        return replace(self, model=model)

    def cached_mask(self, expression: str) -> BoolArray | None:
        """Return the mask of a filter, [items], if it has been made for this state before."""
        return self.model.catalogue.cached_mask(self.masks, self.model.version, expression)

    def mask(self, expression: str) -> BoolArray:
        """Return the mask of a filter, [items]; not for the event loop's thread.

        Raises:
            FilterError: a filter that cannot be used.
        """
        return self.model.catalogue.mask(self.masks, self.model.version, expression)


@dataclass
class _Hosted:
    """A model in the host: what is served of it, and what keeps it up to date."""

    live: LiveModel
    served: Served
    follower: ItemUpdater
    events: EventUpdater

    async def stop(self) -> None:
        """Follow nothing more, and let go of the model."""
        await self.follower.stop()
        await self.events.stop()


class ModelHost:
    """Owns the served model and the thread that runs it; create it inside a running event loop."""

    def __init__(
        self,
        changes: ItemChanges,
        state: UserState,
        config: ServeConfig,
        metrics: Metrics,
    ) -> None:
        """Prepare an empty host; `load` gives it a model.

        Args:
            changes: item changes that every model is brought up to date with.
            state: stored events, which every model counts on from where it learnt.
            config: limits.
            metrics: told of the model and its queue.
        """
        self._changes = changes
        self._state = state
        self._config = config
        self._hosted: _Hosted | None = None
        self._closed = False
        self._metrics = metrics
        self._wanted_revision = 0
        """The newest item change that somebody waits for."""
        self.jobs = Batcher[Job, Answer](
            run_jobs,
            max_batch=config.max_batch,
            max_queue=config.max_queue,
            name="model",
            limits=WaitLimits(
                config.limits.max_queue_seconds,
                config.limits.standing_queue_seconds,
                config.limits.batch_seconds,
            ),
            watch=metrics.queue("model", lambda: len(self.jobs)),
            prepare=lambda: limit_threads(config.threads),
            # Where every CPU has a worker of its own, one that waits would only stand still.
            gather_seconds=_GATHER_SECONDS if config.workers == 1 else 0.0,
        )
        """The queue of the thread that has lists made."""
        self._upkeep = ThreadPoolExecutor(1, "upkeep")
        self.loading = ThreadPoolExecutor(1, "loading")
        """The thread in which the next model is got ready: what is served does not wait for it."""
        metrics.watch_values(
            {
                "index_items": ("Items that can be recommended", self._alive),
                "item_changes_applied": ("Number of the last item change that lists know", self._revision),
                "item_changes_pending": ("Item changes that lists do not know yet", self._pending),
                "events_counted": ("Recorded events that the model has counted", self._counted),
                "events_of_unknown_items": ("Recorded events whose items were unknown", self._unknown),
                "events_behind_seconds": ("Since when recorded events may not be counted", self._behind),
            }
        )

    @property
    def served(self) -> Served:
        """What is served now.

        Raises:
            Problem: nothing yet.
        """
        return self._now.served

    @property
    def works(self) -> bool:
        """Whether lists can be made: not once the served model's process has ended."""
        return self._now.live.works

    @property
    def revision(self) -> int:
        """The last item change that answers reflect."""
        return self._now.follower.revision

    def _alive(self) -> float:
        return 0 if self._hosted is None else self._hosted.served.model.catalogue.alive_count

    def _revision(self) -> float:
        return 0 if self._hosted is None else self.revision

    def _pending(self) -> float:
        return max(0, self._wanted_revision - self._revision())

    def _counted(self) -> float:
        return 0 if self._hosted is None else self._hosted.events.counted

    def _unknown(self) -> float:
        return 0 if self._hosted is None else self._hosted.events.unknown

    def _behind(self) -> float:
        return 0 if self._hosted is None else self._hosted.events.behind_seconds

    @property
    def _now(self) -> _Hosted:
        if self._hosted is None:
            raise not_ready()
        return self._hosted

    def queue_metrics(self, name: str, length: Callable[[], float]) -> QueueMetrics:
        """Return what a queue beside the model's is to report to."""
        return self._metrics.queue(name, length)

    def expect(self) -> None:
        """Announce a list, and refuse it where it would wait too long.

        Raises:
            QueueFull: too much work waits.
        """
        self.jobs.expect()

    def admit(self, deadline: float | None) -> None:
        """Refuse a list that would wait too long.

        Raises:
            QueueFull: too much work waits.
            TimeoutError: the deadline (event loop time) passed.
        """
        self.jobs.admit(deadline)

    async def ask(
        self, job: RecommendJob | SimilarJob, deadline: float | None, background: bool = False
    ) -> Answer:
        """Have a list made, and note in the current call's record where the time went.

        A background list is made when no other waits, and leaves no note: a stream makes millions.

        Raises:
            QueueFull: too much work waits.
            TimeoutError: the deadline (event loop time) passed.
        """
        record = RECORD.get()
        if record is None or background:
            return await self.jobs.submit(job, deadline, background=background)
        timeline, came = Timeline(), time.perf_counter()
        try:
            return await self.jobs.submit(replace(job, timeline=timeline), deadline)
        finally:
            record.stages.append(Stage("queue", came, timeline.began or time.perf_counter()))
            record.stages.extend(timeline.stages)

    async def load(self, live: LiveModel, derived: Served) -> None:
        """Bring a model up to date, warm it up, and serve it from then on in place of the former.

        Requests that began with the former are answered by it. If anything fails, the former stays.

        Args:
            live: the model.
            derived: made of its current state, outside the event loop.

        Raises:
            StateUnavailable: item changes or events could not be read.
        """

        def applied() -> None:
            hosted.served = hosted.served.next(live.current)

        follower = ItemUpdater(
            live, self._changes, self.jobs, self._upkeep, applied, self._config.item_poll_seconds
        )
        events = EventUpdater(live, self._state, self.jobs, self._config.event_poll_seconds)
        hosted = _Hosted(live, derived, follower, events)
        try:
            await follower.prepare(self.loading)
            await events.prepare(self.loading)
            await self._warm_up(live.current)
            while self._hosted is not None and follower.revision < self._hosted.follower.revision:
                # What has been acknowledged in the meantime must hold here too.
                await follower.prepare(self.loading)
            await events.prepare(self.loading)  # what came meanwhile
        except BaseException:
            await hosted.stop()
            raise
        _warn_of_overruled(live.current)
        former, self._hosted = self._hosted, hosted
        model = live.current
        self._metrics.model(model.version, model.device, model.data_end, derived.since_us / 1e6)
        follower.start()
        events.start()
        if former is not None:
            await former.stop()

    async def reach(self, revision: int, deadline: float | None = None, at_once: bool = False) -> None:
        """Return once answers reflect a revision of the item changes.

        Args:
            revision: what is waited for.
            deadline: event loop time until which it is waited for.
            at_once: as of `ItemUpdater.reach`.

        Raises:
            TimeoutError: the deadline (event loop time) passed before.
        """
        self._wanted_revision = max(self._wanted_revision, revision)
        while self.revision < revision:
            if self._closed:
                raise not_ready()
            # Ends early where another model takes over.
            await self._now.follower.reach(revision, deadline, at_once)

    def events_came(self) -> None:
        """Have new events counted soon."""
        self._now.events.ring()

    async def close(self) -> None:
        """Finish running work and stop the thread."""
        self._closed = True
        if self._hosted is not None:
            await self._hosted.stop()
        await self.jobs.close()
        self._upkeep.shutdown(wait=True)
        self.loading.shutdown(wait=False)

    async def _warm_up(self, model: Model) -> None:
        """Answer one list and one similarity search, so that no caller waits for first-time work."""
        nobody = History(np.zeros(0, np.int32), np.zeros(0, np.int8), np.zeros(0, np.int64))
        request = Request(history=nobody, now=max(model.data_end, 1), k=min(10, len(model.catalogue)))
        await self.jobs.submit(RecommendJob(model, request, "warm up"), urgent=True)
        await self.jobs.submit(SimilarJob(model, "warm up", 1, np.zeros(0, np.int32), None), urgent=True)


def _template(model: Model) -> TextTemplate:
    template = model.manifest.get("template")
    return TextTemplate(()) if template is None else TextTemplate.from_info(template)


def _warn_of_overruled(model: Model) -> None:
    """Say which declared attributes a model has with another type."""
    for name, declared in model.catalogue.overruled.items():
        counts = model.catalogue.kinds.get(name)
        _LOG.warning(
            "attribute '%s' was declared as %s; model %s has it as %s, which counts",
            name,
            declared.name,
            model.version,
            "a type that filters cannot use" if counts is None else counts.name,
        )
