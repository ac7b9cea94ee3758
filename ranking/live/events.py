"""Recorded events, added to a bundle's statistics: popularity, demand and co-occurrence.

Statistics are updated in place between two batches of requests. Recent popularity decays only while events
are recorded: its clock continues from the bundle's last event at the first recorded one, however far apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np

from features.candidates.features import ItemArrays
from features.data.dataset import BoolArray, IntArray, LongArray
from features.data.statistics import DAY, RECENT_DAYS
from ranking.catalogue.live_catalogue import LiveCatalogue
from ranking.kernels.popularity_order import PopularityOrder
from ranking.live.arrays import LiveArrays
from ranking.live.demand import LiveDemand
from ranking.live.neighbours import CoOccurrences, LiveNeighbours
from ranking.live.recorded_events import CountResult, Interaction, RecordedEvent
from ranking.retrieval.source_indexes import OLD_EVENT_WEIGHT

WELL_KNOWN: Final = 20
"""Events from which on an item without training events is no longer treated as new."""
_MAX_DEFERRED: Final = 10_000
"""Most deferred events of unknown items; beyond it the oldest are dropped."""
_AGING_SECONDS: Final = DAY // 4
"""Steps in which recent popularity decays: at most two per cent each."""
_REFRESH_ROWS: Final = 1 << 14
"""Items refreshed at a time when a day ends: some milliseconds."""


class LiveEvents:
    """Counts recorded events for one bundle; for the thread that runs the model."""

    def __init__(self, arrays: LiveArrays, popular: PopularityOrder, window: int, room: int) -> None:
        """Start with a bundle's statistics.

        Args:
            arrays: the arrays to update, of the bundle's items only.
            popular: the popularity order to update.
            window: largest distance, in events, of co-occurring items of a history.
            room: how many items may be added.

        """
        self._arrays = arrays
        self._popular = popular
        self._window = window
        self._view = arrays.view(arrays.base_size)
        base = self._view.statistics
        self._trained: BoolArray = np.zeros(arrays.base_size + room, dtype=np.bool_)
        self._trained[: arrays.base_size] = base.count > 0
        self._demand = LiveDemand(base.demand, arrays.base_size + room)
        self._neighbours = LiveNeighbours(base.count, window, arrays.base_size + room)
        self._began: int | None = None
        """Unix seconds of the first event, where the bundle's counts start to decay."""
        self._recent_as_of = 0
        """Unix seconds that the column `recent` refers to."""
        self._day = 0
        self._next, self._behind = 0, 0
        """Next row whose demand is to be refreshed for the current time, and the number of such rows."""
        self._deferred: deque[RecordedEvent] = deque(maxlen=_MAX_DEFERRED)

    def _arrays_of(self, size: int) -> ItemArrays:
        """Return the arrays of the first rows, cached per size."""
        if len(self._view.text_units) != size:
            self._view = self._arrays.view(size)
        return self._view

    def well_known(self, size: int) -> BoolArray:
        """Return the items that need no quota as new ones, [size]: trained, or with enough events since."""
        known: BoolArray = self._trained[:size] | (self._arrays_of(size).statistics.count >= WELL_KNOWN)
        return known

    def untrained(self, size: int) -> BoolArray:
        """Return the mask of the items without training events, [size]."""
        return ~self._trained[:size]

    def warm_up(self) -> None:
        """Compile the loops that count events, by calls that change nothing.

        Where their machine code is not cached, the first recorded event would otherwise hold up the lists of
        the following seconds.
        """
        size = len(self._view.text_units)
        if size == 0:
            return
        statistics, rows = self._view.statistics, np.zeros(0, dtype=np.int32)
        self._popular.rise(rows, np.zeros(0, dtype=np.float64))
        self._demand.add(rows, np.zeros(0, dtype=np.int64))
        self._demand.put(rows, statistics.demand.present)
        first = np.zeros(1, dtype=np.int32)
        itself = CoOccurrences(first, first.copy(), np.ones(1, dtype=np.float32))  # such pairs are skipped
        self._neighbours.add(itself, statistics.follow, statistics.together)

    @property
    def has_deferred(self) -> bool:
        """Whether there are deferred events of unknown items."""
        return bool(self._deferred)

    def count_deferred(self, catalogue: LiveCatalogue) -> bool:
        """Count deferred events of items that have been added; return whether one has become well known."""
        deferred = list(self._deferred)
        self._deferred.clear()
        return self.count(deferred, catalogue)[1]

    def count(self, events: Sequence[RecordedEvent], catalogue: LiveCatalogue) -> tuple[CountResult, bool]:
        """Count events, in order of arrival.

        Args:
            events: recorded since the bundle's training, each given once.
            catalogue: the newest snapshot of the items.

        Returns:
            Counts, and whether an item has become well known.

        """
        found = catalogue.find([event.item_id for event in events])
        known = [(event, row) for event, row in zip(events, found, strict=True) if row is not None]
        self._deferred.extend(e for e, row in zip(events, found, strict=True) if row is None)
        size, promoted = catalogue.size, False
        if known:
            rows = np.array([row for _, row in known], dtype=np.int32)
            times = np.array([event.time_us // 1_000_000 for event, _ in known], dtype=np.int64)
            promoted = self._count(rows, times, size)
            statistics = self._arrays_of(size).statistics
            near = self._near([event.before for event, _ in known], rows, catalogue)
            self._neighbours.add(near, statistics.follow, statistics.together)
        self._refresh_some(size)
        return CountResult(len(known), len(events) - len(known), self._behind), promoted

    def _count(self, rows: IntArray, times: LongArray, size: int) -> bool:
        """Count events of known items; return whether one has become well known."""
        if self._began is None:
            self._began = self._recent_as_of = int(times[0])
        statistics = self._arrays_of(size).statistics
        # At whole steps, so that it does not depend on the batches in which the events come.
        steps = (int(times.max()) - self._recent_as_of) // _AGING_SECONDS
        if steps > 0:
            statistics.recent[:] *= np.float32(_decay(steps * _AGING_SECONDS))
            self._recent_as_of += steps * _AGING_SECONDS
            self._behind = size
        touched, which, more = np.unique(rows, return_inverse=True, return_counts=True)
        before = statistics.count[touched]
        statistics.count[touched] = before + more
        fresh = _decay(self._recent_as_of - times)
        statistics.recent[touched] += np.bincount(which, weights=fresh).astype(np.float32)
        # Weights grow with time instead of decaying, so that the stored popularity needs no update.
        weights = _decay(self._began - np.maximum(times, self._began)) + OLD_EVENT_WEIGHT
        self._popular.rise(touched, np.bincount(which, weights=weights).astype(np.float64))
        began = self._began // DAY
        self._demand.add(rows, np.maximum(times // DAY - began, 0))
        for columns in (statistics.demand.present, statistics.demand.previous_day):
            # `previous_day` is the bundle's last day, on which a server may start.
            self._demand.put(touched, columns)
        if self._demand.today > self._day:
            self._day, self._behind = self._demand.today, size
        self._arrays.refresh_near_recent_of(touched, size)
        trained = self._trained[touched]
        return bool(np.any(~trained & (before < WELL_KNOWN) & (before + more >= WELL_KNOWN)))

    def _near(
        self, before: list[tuple[Interaction, ...]], rows: IntArray, catalogue: LiveCatalogue
    ) -> CoOccurrences:
        """Return the pairs of each event with those before it."""
        ids: list[str] = []
        second: list[int] = []
        distances: list[int] = []
        for interactions, row in zip(before, rows.tolist(), strict=True):
            interactions = interactions[: self._window]
            ids += [interaction.item_id for interaction in interactions]
            second += [row] * len(interactions)
            distances += range(1, len(interactions) + 1)
        found = catalogue.find(ids)
        known = np.array([row is not None for row in found], dtype=np.bool_)
        first = np.array([row for row in found if row is not None], dtype=np.int32)
        weights = 1.0 / np.array(distances, dtype=np.float32)[known]
        return CoOccurrences(first, np.array(second, dtype=np.int32)[known], weights)

    def _refresh_some(self, size: int) -> None:
        """Refresh the demand of some items for the current day: their windows move without events."""
        if self._behind == 0:
            return
        stop = min(self._next + min(_REFRESH_ROWS, self._behind), size)
        rows = np.arange(self._next, stop, dtype=np.int32)
        self._demand.put(rows, self._arrays_of(size).statistics.demand.present)
        self._arrays.refresh_near_recent(rows, size)
        self._next, self._behind = stop % size, self._behind - len(rows)


def _decay(seconds: LongArray | int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return the decayed weight of an event after some seconds; above 1 for negative ones."""
    return np.asarray(0.5 ** (np.asarray(seconds, dtype=np.float64) / (DAY * RECENT_DAYS)))
