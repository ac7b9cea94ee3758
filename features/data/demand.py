"""Demand over time: events of each item before any moment, counted in whole UTC days.

A query at some moment is described by the events before it. Under leave-one-out the queries of one data set
are years apart, and sales in the month before a query predict more than those in the month before the data
ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np

from features.data.dataset import Events, FloatArray, IntArray, LongArray

DAY = 86_400
_CELLS: Final = 1 << 24
"""Numbers of a table of items and days that are counted in one pass over the events: 64 MiB, and for a moment
40 bytes for each that is not 0."""
SPANS = (7, 28, 90, 365)
"""Lengths of the windows, in days."""


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
    def of(
        cls, events: Events, blocks: Callable[[], Iterable[LongArray]], items: int, earlier: int = 0
    ) -> Demand:
        """Count events.

        Memory is that of a table of some items and all days, and grows with the pairs of an item and a day on
        which it has events, not with the events. A larger catalogue takes more passes over them.

        Args:
            events: all events.
            blocks: returns their positions, in blocks; called once for each pass.
            items: size of the catalogue.
            earlier: seconds by which their times are taken for earlier.
        """

        def days_of(positions: LongArray) -> LongArray:
            return (events.time[positions] - earlier) // DAY

        each = [np.unique(days_of(positions)) for positions in blocks()]
        days = np.unique(np.concatenate(each)) if each else np.zeros(0, dtype=np.int64)
        origin = int(days[0]) if len(days) else 0
        width = int(days[-1]) - origin + 2 if len(days) else 1
        per = max(_CELLS // max(len(days), 1), 1)
        found = [
            _counted(events, blocks(), days_of, days, range(start, min(start + per, items)), width)
            for start in range(0, items, per)
        ]
        keys = np.concatenate([keys for keys, _, _ in found])
        totals = np.zeros(len(keys) + 1, dtype=np.int64)
        np.cumsum(np.concatenate([counts for _, counts, _ in found]), out=totals[1:])
        first = np.concatenate([first for _, _, first in found])
        return cls(keys, totals, np.array([origin, width]), first)

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


def _counted(
    events: Events,
    blocks: Iterable[LongArray],
    days_of: Callable[[LongArray], LongArray],
    days: LongArray,
    rows: range,
    width: int,
) -> tuple[LongArray, IntArray, LongArray]:
    """Count the events of some items by day.

    Args:
        events: all events.
        blocks: their positions, in blocks.
        days_of: returns the days of positions, since 1970.
        days: those with events, ascending; one time far from all others adds one number for each item.
        rows: consecutive items.
        width: days from the first event to the day after the last.

    Returns:
        As of `Demand`: keys of the items' pairs, events of each pair, and each item's first day.
    """
    table: IntArray = np.zeros(len(rows) * len(days), dtype=np.int32)
    for positions in blocks:
        item = events.item[positions] - rows.start
        inside = (item >= 0) & (item < len(rows))
        column = np.searchsorted(days, days_of(positions[inside]))
        np.add.at(table, item[inside].astype(np.int64) * len(days) + column, 1)
    cells = np.flatnonzero(table)
    owner, column = np.divmod(cells, max(len(days), 1))
    day = days[column] - days[:1]
    first = np.full(len(rows), width, dtype=np.int64)
    starts = np.flatnonzero(np.diff(owner, prepend=-1))  # of each item's days, in ascending order
    first[owner[starts]] = day[starts]
    return (owner + rows.start) * width + day, table[cells], first


def demand_names() -> list[str]:
    """Names of the columns of `Demand.table`."""
    return ["log_sold", *(f"log_sold_{span}" for span in SPANS), "log_days_on_sale", "trend", "is_new"]
