"""Ragged histories and sums by key, the inputs of candidate sources and candidate features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from features.data.dataset import Events, FloatArray, IntArray, LongArray
from features.data.prefixes import BLOCK, user_blocks
from features.data.splits import Queries, ragged_ranges

INTEREST: Final = -1
"""Kind code of an event of a kind unknown to the model: it shows interest, but is not counted as a repeat."""


@dataclass(frozen=True)
class HistoryBatch:
    """Histories of several queries, concatenated, each oldest first."""

    offsets: LongArray  # [queries + 1]
    items: IntArray  # [total events]
    kinds: npt.NDArray[np.int8]  # [total events]
    times: LongArray  # [total events] Unix seconds
    now: LongArray  # [queries] Unix seconds
    interest: npt.NDArray[np.bool_] | None = None
    """[total events] events that were of kind `INTEREST`, whose `kinds` are the weakest known one; None where
    there are none, as always in training."""

    def __len__(self) -> int:
        return len(self.now)

    def owners(self) -> LongArray:
        """Query of each event, [total events]."""
        return np.repeat(np.arange(len(self), dtype=np.int64), np.diff(self.offsets))

    def age(self) -> LongArray:
        """Events of the same history that came later, [total events]: 0 is the newest."""
        return self.offsets[1:][self.owners()] - 1 - np.arange(len(self.items), dtype=np.int64)

    def newest(self, count: int) -> HistoryBatch:
        """Keep each history's last `count` events."""
        start = np.maximum(self.offsets[:-1], self.offsets[1:] - count)
        sizes = self.offsets[1:] - start
        positions = ragged_ranges(start, sizes)
        return HistoryBatch(
            _offsets(sizes),
            self.items[positions],
            self.kinds[positions],
            self.times[positions],
            self.now,
            None if self.interest is None else self.interest[positions],
        )

    def kinds_or_interest(self) -> npt.NDArray[np.int8]:
        """Return the kind codes, `INTEREST` for events of interest, [total events]."""
        if self.interest is None:
            return self.kinds
        return np.where(self.interest, np.int8(INTEREST), self.kinds)

    def without_interest(self) -> HistoryBatch:
        """Return the histories without the events of interest."""
        if self.interest is None:
            return self
        keep = ~self.interest
        sizes = np.bincount(self.owners()[keep], minlength=len(self)).astype(np.int64)
        return HistoryBatch(_offsets(sizes), self.items[keep], self.kinds[keep], self.times[keep], self.now)

    def select(self, start: int, stop: int) -> HistoryBatch:
        """Return the queries start..stop."""
        low, high = int(self.offsets[start]), int(self.offsets[stop])
        return HistoryBatch(
            self.offsets[start : stop + 1] - low,
            self.items[low:high],
            self.kinds[low:high],
            self.times[low:high],
            self.now[start:stop],
            None if self.interest is None else self.interest[low:high],
        )


def _offsets(sizes: LongArray) -> LongArray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def histories_of(events: Events, queries: Queries) -> HistoryBatch:
    """Collect the histories of evaluation or training queries."""
    start = events.offsets[queries.user]
    sizes = queries.end - start
    positions = ragged_ranges(start, sizes)
    return HistoryBatch(
        _offsets(sizes), events.item[positions], events.kind[positions], events.time[positions], queries.time
    )


def seen_keys(events: Events, queries: Queries, n_items: int, size: int = BLOCK) -> LongArray:
    """Return the distinct keys query * items + item of the items in histories, ascending.

    Histories are read in blocks of about `size` events, because all of them may not fit into memory.
    """
    begin = events.offsets[queries.user]
    lengths = queries.end - begin
    found = [np.zeros(0, dtype=np.int64)]
    for first, last in user_blocks(_offsets(lengths), size):
        owners = np.repeat(np.arange(first, last, dtype=np.int64), lengths[first:last])
        items = events.item[ragged_ranges(begin[first:last], lengths[first:last])]
        found.append(np.unique(owners * n_items + items))
    return np.concatenate(found)


def batch_histories(
    items: Sequence[IntArray],
    kinds: Sequence[npt.NDArray[np.int8]],
    times: Sequence[LongArray],
    now: Sequence[int],
    weakest: int = 0,
) -> HistoryBatch:
    """Concatenate single histories.

    Args:
        items: catalogue rows of each history.
        kinds: kind codes of its events; `INTEREST` where the model does not know the kind.
        times: Unix seconds of its events.
        now: Unix seconds of each query.
        weakest: kind code given to events of interest.

    """
    sizes = np.array([len(i) for i in items], dtype=np.int64)
    codes = np.concatenate([*kinds, np.zeros(0, dtype=np.int8)]).astype(np.int8)
    interest = codes == INTEREST
    known = not interest.any()
    return HistoryBatch(
        _offsets(sizes),
        np.concatenate([*items, np.zeros(0, dtype=np.int32)]).astype(np.int32),
        codes if known else np.where(interest, np.int8(weakest), codes),
        np.concatenate([*times, np.zeros(0, dtype=np.int64)]).astype(np.int64),
        np.array(now, dtype=np.int64),
        None if known else interest,
    )


def stable_order(keys: npt.NDArray[np.integer]) -> LongArray:
    """Return np.argsort(keys, axis=-1, kind="stable").

    Ten times as fast: numpy sorts plain numbers with vector instructions, so each key carries its position in
    its lowest bits. Key and position together have to fit into 63 bits.
    """
    bits = keys.shape[-1].bit_length()
    packed: LongArray = (keys.astype(np.int64) << bits) | np.arange(keys.shape[-1])
    packed.sort(axis=-1)
    packed &= (1 << bits) - 1
    return packed


@dataclass(frozen=True)
class KeyedSums:
    """Sums of values by integer key, looked up by binary search."""

    keys: LongArray  # sorted, distinct
    sums: FloatArray  # aligned with keys

    @classmethod
    def of(cls, keys: LongArray, values: npt.NDArray[np.floating] | None = None) -> KeyedSums:
        """Add up values (ones by default) that share a key."""
        if len(keys) == 0:
            return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        order = stable_order(keys)
        ordered = keys[order]
        first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
        if values is None:
            sums = np.diff(np.concatenate([first, [len(ordered)]])).astype(np.float32)
        else:
            sums = np.add.reduceat(values[order].astype(np.float64), first).astype(np.float32)
        return cls(ordered[first], sums)

    @classmethod
    def largest(cls, keys: LongArray, values: npt.NDArray[np.generic]) -> KeyedSums:
        """Keep the largest value per key instead of the sum."""
        if len(keys) == 0:
            return cls(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32))
        order = np.lexsort((values, keys))
        ordered = keys[order]
        last = np.flatnonzero(np.concatenate([ordered[1:] != ordered[:-1], [True]]))
        return cls(ordered[last], values[order][last])  # type: ignore[arg-type]

    def get(self, keys: LongArray, default: float = 0.0) -> npt.NDArray[np.floating]:
        """Return the value of each key, of the shape of `keys`."""
        if len(self.keys) == 0:
            return np.full(keys.shape, default, dtype=self.sums.dtype)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, self.sums[place], default)


def contains(sorted_keys: LongArray, keys: LongArray) -> npt.NDArray[np.bool_]:
    """Return which keys are in a sorted array, of the shape of `keys`."""
    if len(sorted_keys) == 0:
        return np.zeros(keys.shape, dtype=np.bool_)
    place = np.minimum(np.searchsorted(sorted_keys, keys), len(sorted_keys) - 1)
    found: npt.NDArray[np.bool_] = sorted_keys[place] == keys
    return found
