"""The events of drawn windows alone, so that an epoch of a sample needs no memory for all events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from encoders.towers.sequences import EventTensors
from features.data.dataset import Events, LongArray
from features.data.splits import ragged_ranges

_LOTS: Final = 1 << 20
"""Random numbers drawn at a time."""


@dataclass(frozen=True)
class DrawnEvents:
    """A copy of the events of some windows, and where the windows are in it."""

    tensors: EventTensors
    start: LongArray  # [windows]
    stop: LongArray  # [windows]

    @classmethod
    def of(
        cls, events: Events, end: LongArray, start: LongArray, stop: LongArray, ties: int | None = None
    ) -> DrawnEvents:
        """Copy the windows [start, stop), each [windows], of training events.

        Args:
            events: all events.
            end: position of each user's first event after training, [users].
            start: first position of each window.
            stop: position after the last of each.
            ties: reorder events of the same user and second, as `shuffle_ties` does with a generator of this
                seed; None keeps their order.
        """
        if len(start) == 0:
            return cls(EventTensors.of_arrays(events.item[:0], events.kind[:0], events.time[:0]), start, stop)
        low, high = (start, stop) if ties is None else _whole_seconds(events, end, start, stop)
        order = np.argsort(low, kind="stable")
        furthest = np.maximum.accumulate(high[order])
        # Regions that overlap are one: an event that two windows read has the same place in both.
        opens = np.flatnonzero(np.concatenate([[True], low[order][1:] >= furthest[:-1]]))
        lows, highs = low[order][opens], np.append(furthest[opens[1:] - 1], furthest[-1])
        positions = ragged_ranges(lows, highs - lows)
        if ties is not None:
            lot = _lots(np.random.default_rng(ties), positions)
            # Users follow each other, times do not decrease within a user.
            positions = positions[np.lexsort((lot, events.time[positions], events.user[positions]))]
        begins = np.cumsum(highs - lows) - (highs - lows)  # of each region in the copy
        region = np.searchsorted(lows, start, side="right") - 1
        tensors = EventTensors.of_arrays(
            events.item[positions], events.kind[positions], events.time[positions]
        )
        shift = (begins - lows)[region].astype(np.int64)
        return cls(tensors, start + shift, stop + shift)


def _whole_seconds(
    events: Events, end: LongArray, start: LongArray, stop: LongArray
) -> tuple[LongArray, LongArray]:
    """Return windows, each [windows], extended to all training events of their first and last second."""
    user = events.user[start]
    low = _first_at(events, events.offsets[user], start, events.time[start])
    high = _first_at(events, stop, end[user], events.time[stop - 1] + 1)
    return low, high


def _first_at(events: Events, low: LongArray, high: LongArray, time: LongArray) -> LongArray:
    """Return the first position of [low, high) that is not before a time; `high` without one, [windows].

    All searches halve their ranges together.
    """
    low, high = low.copy(), high.copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        before = open_ & (events.time[np.where(open_, middle, 0)] < time)
        low = np.where(before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
    return low


def _lots(rng: np.random.Generator, positions: LongArray) -> npt.NDArray[np.float64]:
    """Return the random numbers of ascending positions, [positions], where each position has one."""
    lots: npt.NDArray[np.float64] = np.empty(len(positions))
    done, first = 0, 0
    while done < len(positions):
        drawn = rng.random(_LOTS)
        here = int(np.searchsorted(positions, first + _LOTS))
        lots[done:here] = drawn[positions[done:here] - first]
        done, first = here, first + _LOTS
    return lots
