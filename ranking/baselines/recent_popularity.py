"""The baseline that lists what was popular in the days before a query."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt

from features.data.dataset import BoolArray, Events, FloatArray, IntArray, LongArray
from features.data.prefixes import prefix_blocks
from features.data.splits import BLOCK, Queries
from ranking.baselines.lists import (
    DAY,
    descending,
    empty_lists,
    has_times,
    list_from_order,
    popularity_share,
    weighted_counts,
)

_CELLS: Final = 1 << 24
"""Counts of items at moments that are held at a time, 128 MiB."""


class RecentPopularity:
    """Recent popularity: events of the last days before a query.

    Queries of one UTC day share a list, as of the first of them, so that none sees later events. Without
    timestamps the last tenth of every user's prefix is the recent part. The prefix is read in blocks once for
    some of the days: a column of its times, sorted, would take 20 bytes an event.
    """

    name = "recent_popularity"

    def __init__(self, days: float = 28.0, kind_weights: FloatArray | None = None) -> None:
        """Take the window and the weight of each event kind."""
        self.days = days
        self.kind_weights = kind_weights

    def fit(self, events: Events, end: LongArray, now: int, n_items: int) -> None:
        """Count the prefix; what is recent is counted for the queries."""
        self.share = popularity_share(weighted_counts(events, end, n_items, self.kind_weights))
        self.has_time = has_times(events, end)
        self.events, self.end, self.now = events, end, now

    def _blocks(self, first: int, last: int) -> Iterator[LongArray]:
        """Yield positions of the prefix by time, those from `first` until before `last` of each block."""
        events, end = self.events, self.end
        for positions in prefix_blocks(events, end, BLOCK):
            if self.has_time:
                time = events.time[positions]
                inside = (time >= first) & (time < last)
                yield positions[inside][np.argsort(time[inside], kind="stable")]
            else:
                user = events.user[positions]
                left = end[user] - positions  # 1 is the last event of the prefix
                yield positions[left <= np.ceil((end - events.offsets[:-1])[user] / 10)]

    def _scores(self, moments: LongArray) -> FloatArray:
        """Return scores at ascending moments, [moments, items].

        They are the counts of the window, plus the overall share below 1 to break ties.
        """
        stops = np.minimum(moments, self.now)
        starts = stops - int(self.days * DAY)
        recent: npt.NDArray[np.float64] = np.zeros((len(moments), len(self.share)))
        for positions in self._blocks(int(starts[0]), int(stops[-1])):
            item = self.events.item[positions]
            weight = np.ones(len(item))
            if self.kind_weights is not None:
                weight = self.kind_weights[self.events.kind[positions]].astype(np.float64)
            low, high = np.zeros(1, dtype=np.int64), np.full(1, len(item))
            if self.has_time:
                time = self.events.time[positions]
                low, high = np.searchsorted(time, starts), np.searchsorted(time, stops)
            for counts, start, stop in zip(recent, low, high, strict=True):
                np.add.at(counts, item[start:stop], weight[start:stop])
        return (recent + 0.5 * self.share).astype(np.float32)

    def recommend(
        self,
        events: Events,
        queries: Queries,
        k: int,
        exclude_seen: bool,
        allowed: BoolArray | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Return each day's most frequent items, ties by overall popularity."""
        items, scores = empty_lists(len(queries), k)
        if len(queries) == 0:
            return items, scores
        days, day_of = np.unique(queries.time // DAY, return_inverse=True)
        if not self.has_time:
            days, day_of = np.zeros(1, dtype=np.int64), np.zeros(len(queries), dtype=np.int64)
        moments = np.full(len(days), np.iinfo(np.int64).max)
        np.minimum.at(moments, day_of, queries.time)
        by_day = np.argsort(day_of, kind="stable")
        edges = np.searchsorted(day_of[by_day], np.arange(len(days) + 1))
        size = max(_CELLS // len(self.share), 1)
        for first in range(0, len(days), size):
            for day, value in enumerate(self._scores(moments[first : first + size]), first):
                members = by_day[edges[day] : edges[day + 1]]
                items[members], scores[members] = list_from_order(
                    descending(value), value, events, queries.select(members), k, exclude_seen, allowed
                )
        return items, scores

    def describe(self) -> str:
        """Describe the method."""
        return (
            f"most events in the {self.days:g} days before the list is asked for"
            if self.has_time
            else "most events in the last tenth of every user's history"
        )
