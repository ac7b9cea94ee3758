"""Histories as padded batches: right-aligned windows for the user tower."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from features.dataset import Events, IntArray, LongArray
from features.histories import HistoryBatch
from features.splits import ragged_ranges


@dataclass(frozen=True)
class SequenceBatch:
    """Right-aligned event windows, each tensor [batch, length]."""

    rows: Tensor
    kinds: Tensor
    times: Tensor
    valid: Tensor

    def to(self, device: torch.device) -> SequenceBatch:
        """Move every tensor."""
        return SequenceBatch(*(t.to(device) for t in (self.rows, self.kinds, self.times, self.valid)))


def gather(events: Events, start: LongArray, stop: LongArray) -> SequenceBatch:
    """Collect the event slices [start, stop) as one padded batch."""
    sizes = stop - start
    length = max(int(sizes.max(initial=0)), 1)
    valid = np.arange(length) >= (length - sizes)[:, None]
    positions = ragged_ranges(start, sizes)

    def place(values: np.ndarray) -> Tensor:
        block = np.zeros(valid.shape, dtype=np.int64)
        block[valid] = values[positions]
        return torch.from_numpy(block)

    times = place(events.time)
    # Padding takes the time of the first real event, so that its gap reads as zero.
    first = (
        torch.from_numpy(events.time[np.minimum(start, len(events) - 1)])
        if len(events)
        else torch.zeros(len(start))
    )
    times = torch.where(torch.from_numpy(valid), times, first[:, None].to(torch.int64))
    return SequenceBatch(place(events.item), place(events.kind), times, torch.from_numpy(valid))


def recent(events: Events, user: IntArray, end: LongArray, max_length: int) -> SequenceBatch:
    """Collect each query's last `max_length` events before `end`."""
    start = np.maximum(events.offsets[user], end - max_length)
    return gather(events, start, end)


def windows(batch: HistoryBatch, length: int) -> SequenceBatch:
    """Collect each history's last events as one padded batch of this length."""
    newest = batch.newest(length)
    valid = np.arange(length) >= (length - np.diff(newest.offsets))[:, None]
    first = np.append(newest.times, 0)[newest.offsets[:-1]]

    def place(values: np.ndarray, padding: np.ndarray | int = 0) -> Tensor:
        block = np.broadcast_to(np.asarray(padding, dtype=np.int64).reshape(-1, 1), valid.shape).copy()
        block[valid] = values
        return torch.from_numpy(block)

    times = place(newest.times, first)  # padding's as in `gather`
    return SequenceBatch(place(newest.items), place(newest.kinds), times, torch.from_numpy(valid))


def training_windows(
    events: Events, end: LongArray, max_length: int, rng: np.random.Generator
) -> tuple[LongArray, LongArray]:
    """Cut every user's training events into windows of `max_length` + 1 that overlap by one event.

    Every event but a user's first is predicted exactly once. The cuts of long histories shift from epoch to
    epoch.

    Returns:
        Start and stop positions, each [windows]; users with fewer than two events have none.

    """
    begin = events.offsets[:-1]
    size = end - begin
    usable = size >= 2
    begin, end, size = begin[usable], end[usable], size[usable]
    phase = np.where(size > max_length + 1, rng.integers(0, max_length, size=len(size)), 0)
    count = np.ceil((size - 1 + phase) / max_length).astype(np.int64)
    owner = np.repeat(np.arange(len(count)), count)
    number = ragged_ranges(np.zeros(len(count), dtype=np.int64), count)
    # Chunks are counted back from the newest event; the newest one is shorter by the phase.
    stop = end[owner] - np.maximum(number * max_length - phase[owner], 0)
    first_predicted = end[owner] - ((number + 1) * max_length - phase[owner])
    start = np.maximum(first_predicted - 1, begin[owner])
    return start, stop


def shuffle_ties(events: Events, end: LongArray, rng: np.random.Generator) -> Events:
    """Reorder training events (before `end`) of the same user and second at random.

    The lines of one basket carry no order; a file that lists them by product number would otherwise teach the
    towers to count upwards.
    """
    # What is held out stays behind the cut, even when it shares its second with training events.
    held_out = np.arange(len(events)) >= end[events.user]
    lot = np.where(held_out, 2.0, rng.random(len(events)))
    order = np.lexsort((lot, held_out, events.time, events.user))
    return replace(events, item=events.item[order], kind=events.kind[order])


def passes_per_epoch(events: Events, end: LongArray, max_length: int, least: int) -> int:
    """Return how often an epoch goes through the users to have about `least` windows, once at least.

    A training has so many epochs, and one pass over a few hundred users is a few dozen steps. Trainings that
    end elsewhere, but run for epochs chosen here, take the same number.
    """
    count = len(training_windows(events, end, max_length, np.random.default_rng(0))[0])
    return max(1, round(least / count)) if count else 1


def epoch_windows(
    events: Events, end: LongArray, max_length: int, rng: np.random.Generator, passes: int = 1, most: int = 0
) -> tuple[LongArray, LongArray]:
    """Return the windows of one epoch: of all users once or several times, each cut anew, or a part of them.

    Args:
        events: the users' events.
        end: position of each user's first event that is not for training.
        max_length: events a window holds beside the first.
        rng: decides the cuts and the draw.
        passes: how often the users are gone through.
        most: windows at most, drawn anew each time; 0 takes all.

    Returns:
        Start and stop positions, each [windows].
    """
    windows = [training_windows(events, end, max_length, rng) for _ in range(passes)]
    start, stop = (np.concatenate(parts) for parts in zip(*windows, strict=True))
    if 0 < most < len(start):
        drawn = rng.choice(len(start), size=most, replace=False)
        start, stop = start[drawn], stop[drawn]
    return start, stop


def epoch_batches(
    start: LongArray, stop: LongArray, batch_size: int, rng: np.random.Generator
) -> Iterator[tuple[LongArray, LongArray]]:
    """Yield shuffled window positions, grouped by length so that little is padded."""
    # Sorting noisy lengths keeps batches even in length and different from epoch to epoch.
    noise = rng.uniform(0.0, 3.0, size=len(start))
    order = np.argsort(stop - start + noise, kind="stable")
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    for index in rng.permutation(len(batches)):
        chosen = batches[index]
        yield start[chosen], stop[chosen]
