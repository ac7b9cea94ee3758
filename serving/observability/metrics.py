"""Prometheus metrics of one server process; documented in docs/operations.md."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
)

from serving.core.call_context import CallRecord

_SECONDS: Final = (
    0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25,
    0.5, 1.0, 2.5, 5.0,
)  # fmt: skip
"""Bounds of latency buckets: densest around the service's usual latencies."""
EVENT_OUTCOMES: Final = ("new_events", "duplicate_events", "rejected_events")
"""Annotations of RecordEvents that are counted."""
ITEM_OUTCOMES: Final = ("upserted_items", "updated_items", "deleted_items", "rejected_items")
"""Annotations of RPCs that change items that are counted."""
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class QueueMetrics:
    """The series of one queue."""

    def __init__(self, waits: Histogram, seconds: Histogram, sizes: Histogram) -> None:
        """Report to labelled series."""
        self._waits, self._seconds, self._sizes = waits, seconds, sizes

    def batch(self, waits: Sequence[float], seconds: float) -> None:
        """Record a batch: seconds that each job waited, and seconds of work."""
        for wait in waits:
            self._waits.observe(wait)
        self._sizes.observe(len(waits))
        self._seconds.observe(seconds)


class Metrics:
    """All metrics of a server, in their own registry: several servers may share a process."""

    def __init__(self) -> None:
        """Create all series."""
        self.registry = CollectorRegistry()
        self._calls = self._histogram("call_seconds", "Time to answer a call", "method", "code")
        self._stages = self._histogram("stage_seconds", "Time of a stage of a call", "method", "stage")
        self._queue_wait = self._histogram(
            "queue_wait_seconds", "Time that jobs waited in a queue before their batch began", "queue"
        )
        self._batch_seconds = self._histogram("batch_seconds", "Time of a batch", "queue")
        self._batch_size = Histogram(
            "shelfwise_batch_size", "Jobs of a batch", ["queue"], buckets=_SIZES, registry=self.registry
        )
        self._queue_length = self._gauge("queue_length", "Jobs that wait in a queue", "queue")
        self.in_flight = self._gauge("calls_in_flight", "Calls that are being answered")
        self.shed = self._counter("shed", "Calls refused with RESOURCE_EXHAUSTED", "reason")
        self.refused = self._counter("refused", "Calls turned away before they were read", "reason")
        self.state_errors = self._counter("state_errors", "Calls that the state failed", "method")
        self.state_works = self._gauge(
            "state_works", "1 while the state can be read and fails no call, else 0"
        )
        self.state_works.set(1)
        self._lists = self._counter("lists", "Lists by rung of the fallback ladder", "method", "degradation")
        self._masks = self._counter("filter_masks", "Filters by whether their mask was known", "result")
        self._events = self._counter("events", "Received events by what became of them", "outcome")
        self._items = self._counter("items", "Items in changes by what became of them", "outcome")
        self._event_stored = self._histogram("event_stored_seconds", "From an event's arrival to its commit")
        self._item_applied = self._histogram(
            "item_applied_seconds", "From the arrival of a changed item to lists that know it"
        )
        self.reload_failures = self._counter("reload_failures", "Attempts to load a version that failed")
        self.reload_failed = self._gauge(
            "reload_failed", "1 while CURRENT names a version not served, else 0"
        )
        self.model_deaths = self._counter("model_deaths", "Processes of a served model that have ended")
        self._arm_calls = self._histogram(
            "arm_call_seconds", "Time to answer a call of an arm", "experiment", "arm", "code"
        )
        self._arm_lists = self._counter("arm_lists", "Lists of an arm", "experiment", "arm")
        self.arm_fallbacks = self._counter(
            "arm_fallbacks", "Lists of an arm that were made without its model", "experiment", "arm"
        )
        self._arms: set[tuple[str, str]] = set()
        self.arm_works = self._gauge(
            "arm_works", "0 while the model that an arm needs cannot be used, else 1", "experiment", "arm"
        )
        self.experiments_failed = self._gauge(
            "experiments_failed", "1 while the experiments' file is not used because it is invalid, else 0"
        )
        self._model = Info("shelfwise_model", "The model that answers", registry=self.registry)
        self._data_end = self._gauge("model_data_timestamp_seconds", "Last event that the model learnt from")
        self._loaded = self._gauge("model_loaded_timestamp_seconds", "When the model was loaded")
        # Looking up a series by its labels costs as much as incrementing it.
        self._call_seconds = cache(self._calls.labels)
        self._stage_seconds = cache(self._stages.labels)
        self._list_count = cache(self._lists.labels)
        self._mask_count = cache(self._masks.labels)
        self.shed_count = cache(self.shed.labels)
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)

    def watch_values(self, values: dict[str, tuple[str, Callable[[], float]]]) -> None:
        """Report gauges that are evaluated at every scrape: name -> (help, value)."""
        for name, (text, value) in values.items():
            self._gauge(name, text).set_function(value)

    def queue(self, name: str, length: Callable[[], float]) -> QueueMetrics:
        """Return the series of a queue, and report its length."""
        self._queue_length.labels(name).set_function(length)
        waits, seconds, sizes = (
            family.labels(name) for family in (self._queue_wait, self._batch_seconds, self._batch_size)
        )
        return QueueMetrics(waits, seconds, sizes)

    def forget_queue(self, name: str) -> None:
        """Drop the series of a queue that is gone."""
        for family in (self._queue_length, self._queue_wait, self._batch_seconds, self._batch_size):
            family.remove(name)

    def keep_arms(self, arms: Collection[tuple[str, str]]) -> None:
        """Drop the series of arms that are gone, so that their number is bounded by the experiments' file.

        Args:
            arms: experiment and arm of all others.
        """
        for experiment, arm in self._arms.difference(arms):
            for family in (self._arm_calls, self._arm_lists, self.arm_fallbacks, self.arm_works):
                family.remove_by_labels({"experiment": experiment, "arm": arm})
        self._arms = set(arms)

    def arm_list(self, experiment: str, arm: str, fallback: bool) -> None:
        """Count a list of an arm, unless the arm has gone while the list was made.

        Args:
            experiment: its name.
            arm: its name.
            fallback: whether the list was made without the arm's model.
        """
        if (experiment, arm) in self._arms:
            self._arm_lists.labels(experiment, arm).inc()
            if fallback:
                self.arm_fallbacks.labels(experiment, arm).inc()

    def model(self, version: str, device: str, data_end: float, loaded: float) -> None:
        """Report the served model and its device; times in Unix seconds."""
        self._model.info({"version": version, "device": device})
        self._data_end.set(data_end)
        self._loaded.set(loaded)

    def call(self, record: CallRecord) -> None:
        """Record a finished call."""
        self._call_seconds(record.method, record.code).observe(record.ended - record.began)
        for name, began, ended in record.stages:
            self._stage_seconds(record.method, name).observe(ended - began)
            if name == "store":
                self._event_stored.observe(ended - record.began)
            elif name == "apply":
                self._item_applied.observe(ended - record.began)
        for experiment, arm in self._arms.intersection(record.arms):
            self._arm_calls.labels(experiment, arm, record.code).observe(record.ended - record.began)
        notes = record.notes
        if "degradation" in notes:
            self._list_count(record.method, notes["degradation"]).inc()
        if notes.get("history") == "unavailable":
            self.state_errors.labels(record.method).inc()
        if "filter_mask" in notes:
            self._mask_count(notes["filter_mask"]).inc()
        for outcome in EVENT_OUTCOMES:
            if outcome in notes:
                self._events.labels(outcome).inc(int(notes[outcome]))
        for outcome in ITEM_OUTCOMES:
            if outcome in notes:
                self._items.labels(outcome).inc(int(notes[outcome]))

    def _histogram(self, name: str, text: str, *labels: str) -> Histogram:
        return Histogram(f"shelfwise_{name}", text, labels, buckets=_SECONDS, registry=self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"shelfwise_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"shelfwise_{name}", text, labels, registry=self.registry)
