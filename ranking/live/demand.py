"""Events per item and day, continued from a bundle's counts: the demand features of an item as of today.

The first recorded day follows the bundle's last one, however far apart they are by the calendar: demand does
not decay while nothing is recorded, and after a week of recording the one-week window holds only recorded
events. Each window includes the current day in addition to its full days.
"""

from __future__ import annotations

import math

import numpy as np

from features.data.dataset import FloatArray, IntArray, LongArray
from features.data.demand import SPANS, Demand
from features.kernels.compiled import compiled

_MOST = max(SPANS)
_NEVER = 2**31 - 1
"""Day of the first event of an item without any."""
_PAIRS = 1024
"""Initial capacity, in pairs of item and day."""


class LiveDemand:
    """Daily counts since recording began; for the thread that runs the model.

    A pair of an item and a day takes 16 bytes; pairs outside all windows are dropped before memory grows.
    """

    def __init__(self, base: Demand, items: int) -> None:
        """Continue a bundle's counts.

        Args:
            base: the bundle's counts.
            items: capacity in rows.

        """
        self._base = base.keys, base.totals, base.first, int(base.calendar[1])
        self.today = 0
        """The newest day with events, counted from the first day of recording."""
        self._total: IntArray = np.zeros(items, dtype=np.int32)
        self._newest: IntArray = np.full(items, -1, dtype=np.int32)
        self._born: IntArray = np.full(items, _NEVER, dtype=np.int32)
        self._pairs: IntArray = np.zeros((_PAIRS, 4), dtype=np.int32)
        self._used = 0

    def add(self, rows: IntArray, days: LongArray) -> None:
        """Count one event per row and day, [events] each; days since the first day of recording."""
        if self._used + len(rows) > len(self._pairs):
            self._make_room(len(rows))
        self.today = max(self.today, int(days.max(initial=0)))
        ones = np.ones(len(rows), dtype=np.int32)
        self._used = _add(rows, days, ones, self._newest, self._pairs, self._used)
        np.add.at(self._total, rows, 1)
        np.minimum.at(self._born, rows, days)

    def put(self, rows: IntArray, present: FloatArray) -> None:
        """Write the demand features of rows as of today.

        Args:
            rows: the rows; fastest if consecutive.
            present: [items, columns] written to, see `features.data.demand.demand_names`.

        """
        keys, totals, first, width = self._base
        counted = self._total, self._born, self._newest, self._pairs
        _put(rows, keys, totals, first, width, self.today, *counted, present)

    def _make_room(self, more: int) -> None:
        """Drop the pairs outside all windows, and double the memory if few were dropped."""
        kept = self._pairs[: self._used]
        kept = kept[kept[:, 1] >= self.today - _MOST]
        size = len(self._pairs)
        while 2 * (len(kept) + more) > size:
            size *= 2
        order = np.argsort(kept[:, 1], kind="stable")
        rows, days, counts = (np.ascontiguousarray(kept[order, column]) for column in range(3))
        self._pairs = np.zeros((size, 4), dtype=np.int32)
        self._newest[:] = -1
        self._used = _add(rows, days.astype(np.int64), counts, self._newest, self._pairs, 0)


@compiled()
def _add(
    rows: IntArray, days: LongArray, counts: IntArray, newest: IntArray, pairs: IntArray, used: int
) -> int:
    """Count events in linked lists of (row, day, count, index of the next older day); return entries used."""
    for event in range(len(rows)):
        row, day = rows[event], days[event]
        later, position = -1, newest[row]
        while position >= 0 and pairs[position, 1] > day:
            later, position = position, pairs[position, 3]
        if position >= 0 and pairs[position, 1] == day:
            pairs[position, 2] += counts[event]
            continue
        pairs[used, 0], pairs[used, 1], pairs[used, 2], pairs[used, 3] = row, day, counts[event], position
        if later < 0:
            newest[row] = used
        else:
            pairs[later, 3] = used
        used += 1
    return used


@compiled()
def _put(
    rows: IntArray,
    keys: LongArray,
    totals: LongArray,
    first: LongArray,
    width: int,
    today: int,
    total: IntArray,
    born: IntArray,
    newest: IntArray,
    pairs: IntArray,
    present: FloatArray,
) -> None:
    """Write the demand features of rows; arguments as in `Demand`, then `LiveDemand`."""
    spans = len(SPANS)
    sold = np.zeros(spans, dtype=np.int64)
    now = width - 1 + today  # in days of the bundle
    at, following = np.int64(0), np.int64(-1)
    for row in rows:
        start = np.int64(row) * width
        if row != following:
            at = np.int64(np.searchsorted(keys, start))
        following = np.int64(row) + 1
        sold[:] = 0
        known = np.int64(0)
        while at < len(keys) and keys[at] < start + width:
            day, count = keys[at] - start, totals[at + 1] - totals[at]
            known += count
            for span in range(spans):
                if day >= now - SPANS[span]:
                    sold[span] += count
            at += 1
        age = np.int64(0)
        if known > 0:
            age = now - first[row]
        elif born[row] < _NEVER:
            age = np.int64(max(today - born[row], 1))
        known += total[row]
        position = newest[row]
        while position >= 0 and pairs[position, 1] >= today - _MOST:
            for span in range(spans):
                if pairs[position, 1] >= today - SPANS[span]:
                    sold[span] += pairs[position, 2]
            position = pairs[position, 3]
        columns = present[row]
        columns[0] = math.log1p(known)
        for span in range(spans):
            columns[1 + span] = math.log1p(sold[span])
        columns[1 + spans] = math.log1p(age)
        columns[2 + spans] = math.log1p(4.0 * sold[0]) - math.log1p(sold[1])
        columns[3 + spans] = 1.0 if known == 0 else 0.0
