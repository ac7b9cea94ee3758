"""Recorded events, counted on from a bundle's statistics: popularity, demand, and what is found near what.

Everything is written into the arrays that lists are made from, between two batches of lists. The bundle's
counts age only while events are recorded: its newest moment and the first recorded event are the same moment
for them, however far they lie apart.
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
from ranking.live.neighbours import LiveNeighbours, Near
from ranking.live.recorded_events import Counted, Interaction, RecordedEvent
from ranking.retrieval.source_indexes import PER_EVENT

WELL_KNOWN: Final = 20
"""Recorded events from which on an item without any at training is proposed for what is known of it, and no
longer because nothing is."""
_WAITING: Final = 10_000
"""Events of unknown items that are kept; of more, the oldest are forgotten."""
_AGING_SECONDS: Final = DAY // 4
"""How far recent popularity may lag behind the newest event: two parts in a hundred."""
_ROWS: Final = 1 << 14
"""Items brought to another day at a time: some milliseconds."""


class LiveEvents:
    """Counts recorded events for one bundle; for the thread that runs the model."""

    def __init__(self, arrays: LiveArrays, popular: PopularityOrder, window: int, room: int) -> None:
        """Begin with a bundle's statistics.

        Args:
            arrays: written to; they hold the bundle's items and no others yet.
            popular: the order of the popular items, in which rows rise.
            window: events between which two items of a history count as near each other.
            room: how many items may be added.

        """
        self._arrays = arrays
        self._popular = popular
        self._window = window
        self._view = arrays.view(arrays.base_size)
        base = self._view.statistics
        self._learnt: BoolArray = np.zeros(arrays.base_size + room, dtype=np.bool_)
        self._learnt[: arrays.base_size] = base.count > 0
        self._demand = LiveDemand(base.demand, arrays.base_size + room)
        self._neighbours = LiveNeighbours(base.count, window, arrays.base_size + room)
        self._began: int | None = None
        """Unix seconds of the first event, from which on the bundle's counts age."""
        self._recent_as_of = 0
        """Unix seconds that the column `recent` refers to."""
        self._day = 0
        self._next, self._behind = 0, 0
        """The next row to be brought to the present day, and how many have to be."""
        self._waiting: deque[RecordedEvent] = deque(maxlen=_WAITING)

    def _arrays_of(self, size: int) -> ItemArrays:
        """Return the arrays of the first rows, made once per size."""
        if len(self._view.text_units) != size:
            self._view = self._arrays.view(size)
        return self._view

    def well_known(self, size: int) -> BoolArray:
        """Tell which items need no places as new ones, [size]: learnt about in training, or popular since."""
        known: BoolArray = self._learnt[:size] | (self._arrays_of(size).statistics.count >= WELL_KNOWN)
        return known

    def unlearnt(self, size: int) -> BoolArray:
        """Tell which items had no event at training, [size]."""
        return ~self._learnt[:size]

    @property
    def waits(self) -> bool:
        """Whether there are events of items that were unknown."""
        return bool(self._waiting)

    def count_waiting(self, catalogue: LiveCatalogue) -> bool:
        """Count the events of items that have become known; return as `count` does."""
        waiting = list(self._waiting)
        self._waiting.clear()
        return self.count(waiting, catalogue)[1]

    def count(self, events: Sequence[RecordedEvent], catalogue: LiveCatalogue) -> tuple[Counted, bool]:
        """Count events once, in the order in which they arrived.

        Args:
            events: recorded since the bundle learnt, and not counted before.
            catalogue: the newest state of the items.

        Returns:
            What became of them, and whether an item has become well known.

        """
        found = catalogue.find([event.item_id for event in events])
        known = [(event, row) for event, row in zip(events, found, strict=True) if row is not None]
        self._waiting.extend(e for e, row in zip(events, found, strict=True) if row is None)
        size, promoted = catalogue.size, False
        if known:
            rows = np.array([row for _, row in known], dtype=np.int32)
            times = np.array([event.time_us // 1_000_000 for event, _ in known], dtype=np.int64)
            promoted = self._count(rows, times, size)
            statistics = self._arrays_of(size).statistics
            near = self._near([event.before for event, _ in known], rows, catalogue)
            self._neighbours.add(near, statistics.follow, statistics.together)
        self._refresh_some(size)
        return Counted(len(known), len(events) - len(known), self._behind), promoted

    def _count(self, rows: IntArray, times: LongArray, size: int) -> bool:
        """Count events of known items; return whether one has become well known."""
        if self._began is None:
            self._began = self._recent_as_of = int(times[0])
        statistics = self._arrays_of(size).statistics
        newest = int(times.max())
        if newest - self._recent_as_of >= _AGING_SECONDS:
            statistics.recent[:] *= np.float32(_halved(newest - self._recent_as_of))
            self._recent_as_of = newest
        touched, which, more = np.unique(rows, return_inverse=True, return_counts=True)
        before = statistics.count[touched]
        statistics.count[touched] = before + more
        fresh = _halved(self._recent_as_of - times)
        statistics.recent[touched] += np.bincount(which, weights=fresh).astype(np.float32)
        # As of the beginning: nothing has to age, because what comes later weighs more instead.
        weights = _halved(self._began - np.maximum(times, self._began)) + PER_EVENT
        self._popular.rise(touched, np.bincount(which, weights=weights).astype(np.float64))
        began = self._began // DAY
        self._demand.add(rows, np.maximum(times // DAY - began, 0))
        for columns in (statistics.demand.present, statistics.demand.previous_day):
            # The second is of the bundle's last day, on which a server may start: there, too, it counts.
            self._demand.put(touched, columns)
        if self._demand.today > self._day:
            self._day, self._behind = self._demand.today, size
        near = np.unique(self._arrays_of(size).text_near.ids[touched])
        self._arrays.refresh_near_recent(near[near >= 0], size)
        learnt = self._learnt[touched]
        return bool(np.any(~learnt & (before < WELL_KNOWN) & (before + more >= WELL_KNOWN)))

    def _near(self, before: list[tuple[Interaction, ...]], rows: IntArray, catalogue: LiveCatalogue) -> Near:
        """Pair each event with those before it."""
        ids: list[str] = []
        second: list[int] = []
        distances: list[int] = []
        for interactions, row in zip(before, rows.tolist(), strict=True):
            interactions = interactions[: self._window]
            ids += [interaction.item_id for interaction in interactions]
            second += [row] * len(interactions)
            distances += range(1, len(interactions) + 1)
        found = catalogue.find(ids)
        there = np.array([row is not None for row in found], dtype=np.bool_)
        first = np.array([row for row in found if row is not None], dtype=np.int32)
        weights = 1.0 / np.array(distances, dtype=np.float32)[there]
        return Near(first, np.array(second, dtype=np.int32)[there], weights)

    def _refresh_some(self, size: int) -> None:
        """Bring some items to the present day: their windows have moved on without any event of theirs."""
        if self._behind == 0:
            return
        stop = min(self._next + min(_ROWS, self._behind), size)
        rows = np.arange(self._next, stop, dtype=np.int32)
        self._demand.put(rows, self._arrays_of(size).statistics.demand.present)
        self._arrays.refresh_near_recent(rows, size)
        self._next, self._behind = stop % size, self._behind - len(rows)


def _halved(seconds: LongArray | int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Return what is left of a recent event after some time; more than one for a time that is to come."""
    return np.asarray(0.5 ** (np.asarray(seconds, dtype=np.float64) / (DAY * RECENT_DAYS)))
