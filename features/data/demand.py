"""Demand over time: events of each item before any moment, counted in whole UTC days.

A query at some moment is described by the events before it. Under leave-one-out the queries of one data set
are years apart, and sales in the month before a query predict more than those in the month before the data
ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from features.data.dataset import Events, FloatArray, IntArray, LongArray

DAY = 86_400
_DAY_BITS = 32
_EPOCH = 1 << 31
"""Added to a day, which is negative before 1970."""
SPANS = (7, 28, 90, 365)
"""Lengths of the windows, in days."""


@dataclass(frozen=True)
class _Pairs:
    """Events by item and day."""

    keys: LongArray
    """[pairs] item and day in one number, ascending."""
    counts: LongArray  # [pairs]

    @classmethod
    def empty(cls) -> _Pairs:
        """Return no pairs."""
        return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))

    def added(self, other: _Pairs) -> _Pairs:
        """Return the sums of both."""
        if not len(self.keys) or not len(other.keys):
            return other if not len(self.keys) else self
        keys = np.concatenate([self.keys, other.keys])
        order = np.argsort(keys, kind="stable")  # merges two sorted runs
        keys = keys[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        counts = np.add.reduceat(np.concatenate([self.counts, other.counts])[order], starts)
        return _Pairs(keys[starts], counts)


@dataclass(frozen=True)
class Demand:
    """Cumulated events per item and day."""

    keys: LongArray
    """[pairs] item * width + day for every item and day with events, ascending; day 0 is `origin`."""
    totals: LongArray
    """[pairs + 1] events before each pair, over all items."""
    calendar: LongArray
    """[2] origin (days since 1970) and width (days from the first event to the day after the last)."""
    first: LongArray
    """[items] day of the first event; width for an item without any."""

    @classmethod
    def of(cls, events: Events, blocks: Iterable[LongArray], items: int, earlier: int = 0) -> Demand:
        """Count events.

        Memory grows with the pairs of an item and a day on which it has events, not with the events.

        Args:
            events: all events.
            blocks: their positions, in blocks.
            items: size of the catalogue.
            earlier: seconds by which their times are taken for earlier.
        """
        pairs, waiting = _Pairs.empty(), _Pairs.empty()
        for positions in blocks:
            day = (events.time[positions] - earlier) // DAY
            keys, counts = np.unique(
                (events.item[positions].astype(np.int64) << _DAY_BITS) | (day + _EPOCH), return_counts=True
            )
            waiting = waiting.added(_Pairs(keys, counts))
            if len(waiting.keys) >= len(pairs.keys):  # every pair is merged a few times, not once a block
                pairs, waiting = pairs.added(waiting), _Pairs.empty()
        pairs = pairs.added(waiting)
        rows, day = pairs.keys >> _DAY_BITS, (pairs.keys & ((1 << _DAY_BITS) - 1)) - _EPOCH
        origin = int(day.min()) if len(day) else 0
        width = int(day.max()) - origin + 2 if len(day) else 1
        first = np.full(items, width, dtype=np.int64)
        starts = np.flatnonzero(np.diff(rows, prepend=-1))  # of each item's days, in ascending order
        first[rows[starts]] = day[starts] - origin
        totals = np.concatenate([[0], np.cumsum(pairs.counts)]).astype(np.int64)
        return cls(rows * width + (day - origin), totals, np.array([origin, width]), first)

    def _before(self, rows: IntArray, day: LongArray) -> LongArray:
        """Count each item's events before a day, both of one shape."""
        width = int(self.calendar[1])
        start = rows.astype(np.int64) * width
        low = np.searchsorted(self.keys, start)
        high = np.searchsorted(self.keys, start + np.clip(day, 0, width))
        counted: LongArray = self.totals[high] - self.totals[low]
        return counted

    def _columns(self, rows: IntArray, day: LongArray) -> FloatArray:
        known = self._before(rows, day)
        sold = [known - self._before(rows, day - span) for span in SPANS]
        week, month = sold[0].astype(np.float64), sold[1].astype(np.float64)
        age = np.where(known > 0, day - self.first[rows], 0)
        columns = [known, *sold, age]
        logs = [np.log1p(c) for c in columns] + [np.log1p(4.0 * week) - np.log1p(month)]
        return np.stack([*logs, known == 0], axis=-1).astype(np.float32)

    def _catalogue(self, day: int) -> FloatArray:
        """Return the columns of every item as of one day, [items, columns]."""
        rows = np.arange(len(self.first), dtype=np.int32)
        return self._columns(rows, np.full(len(rows), day, dtype=np.int64))

    @cached_property
    def present(self) -> FloatArray:
        """The columns after the last event, [items, columns]: all that a server needs."""
        return self._catalogue(int(self.calendar[1]) - 1)

    @cached_property
    def previous_day(self) -> FloatArray:
        """The same without the last event's day, for a cut in the middle of that day."""
        return self._catalogue(int(self.calendar[1]) - 2)

    def extended(self, first: LongArray, present: FloatArray, previous_day: FloatArray) -> Demand:
        """Return the same counts for a catalogue with more items, which have no events.

        Args:
            first: `first` with the new items, [more items].
            present: `present` with the new items, [more items, columns].
            previous_day: `previous_day` with the new items, [more items, columns].

        """
        demand = replace(self, first=first)
        demand.__dict__.update(present=present, previous_day=previous_day)  # values of the cached properties
        return demand

    def unsold(self) -> Demand:
        """Return the demand for one item without events, over the same days."""
        return Demand(self.keys[:0], self.totals[:1], self.calendar, self.calendar[1:].copy())

    def table(self, rows: IntArray, now: LongArray) -> tuple[FloatArray, IntArray]:
        """Return the demand for items before the day of each query, without copying cached columns.

        Args:
            rows: [queries, candidates], padded with -1.
            now: [queries] Unix seconds; a moment after the last event counts as the day after it.

        Returns:
            A table [any, columns], in the order of `demand_names`, and which of its rows describes each
            candidate, [queries, candidates]; anything at padding.

        """
        origin, width = (int(v) for v in self.calendar)
        day = np.minimum(now // DAY - origin, width - 1)
        if (day == width - 1).all():
            return self.present, rows
        if (day == width - 2).all():
            return self.previous_day, rows
        columns = self._columns(np.maximum(rows, 0), np.broadcast_to(day[:, None], rows.shape))
        table_rows = np.arange(rows.size, dtype=np.int32).reshape(rows.shape)
        return columns.reshape(rows.size, columns.shape[-1]), table_rows


def demand_names() -> list[str]:
    """Names of the columns of `Demand.table`."""
    return ["log_sold", *(f"log_sold_{span}" for span in SPANS), "log_days_on_sale", "trend", "is_new"]
