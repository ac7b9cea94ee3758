"""Histories as padded batches: right-aligned windows for the user tower."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from features.data.dataset import Events, IntArray, LongArray
from features.data.histories import HistoryBatch
from features.data.prefixes import user_blocks
from features.data.splits import ragged_ranges


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


@dataclass(frozen=True)
class EventTensors:
    """Events as tensors to gather windows from, each [events]."""

    item: Tensor
    kind: Tensor
    time: Tensor

    @classmethod
    def of(cls, events: Events) -> EventTensors:
        """Return events as tensors on the CPU, which share their memory where torch allows it."""
        return cls.of_arrays(events.item, events.kind, events.time)

    @classmethod
    def of_arrays(cls, item: IntArray, kind: npt.NDArray[np.int8], time: LongArray) -> EventTensors:
        """Return arrays of events as tensors on the CPU, as `of` does."""
        return cls(*(torch.from_numpy(np.require(a, requirements="W")) for a in (item, kind, time)))

    def to(self, device: torch.device) -> EventTensors:
        """Move every tensor."""
        return EventTensors(*(t.to(device) for t in (self.item, self.kind, self.time)))

    def windows(self, start: Tensor, stop: Tensor, length: int) -> SequenceBatch:
        """Collect the slices [start, stop), each at most `length` long, as one padded batch.

        Args:
            start: [batch] first positions, on the device of the events.
            stop: [batch] positions after the last.
            length: of the batch, at least 1; given, so that the host need not synchronise with the device.

        """
        positions = stop[:, None] - length + torch.arange(length, device=stop.device)  # [batch, length]
        valid = positions >= start[:, None]
        if len(self.time) == 0:
            nothing = torch.zeros_like(positions)
            return SequenceBatch(nothing, nothing, nothing, valid)
        # Padding takes the time of the first real event, so that the gap is zero.
        positions = torch.maximum(positions, start[:, None]).clamp(max=len(self.time) - 1)
        rows, kinds = (t[positions].long().masked_fill(~valid, 0) for t in (self.item, self.kind))
        return SequenceBatch(rows, kinds, self.time[positions], valid)


def recent(
    events: Events, user: IntArray, end: LongArray, max_length: int, tensors: EventTensors | None = None
) -> SequenceBatch:
    """Collect each query's last `max_length` events before `end`, [queries, longest].

    Args:
        events: all events.
        user: [queries] user rows.
        end: [queries] positions after the last.
        max_length: how many of the newest.
        tensors: the events on the device of the batch; None is the CPU.

    """
    tensors = EventTensors.of(events) if tensors is None else tensors
    start = np.maximum(events.offsets[user], end - max_length)
    length = max(int((end - start).max(initial=0)), 1)
    device = tensors.time.device
    return tensors.windows(torch.from_numpy(start).to(device), torch.from_numpy(end).to(device), length)


def windows(batch: HistoryBatch, length: int) -> SequenceBatch:
    """Collect each history's last events as one padded batch of this length."""
    newest = batch.newest(length)
    valid = np.arange(length) >= (length - np.diff(newest.offsets))[:, None]
    first = np.append(newest.times, 0)[newest.offsets[:-1]]

    def place(values: np.ndarray, padding: np.ndarray | int = 0) -> Tensor:
        block = np.broadcast_to(np.asarray(padding, dtype=np.int64).reshape(-1, 1), valid.shape).copy()
        block[valid] = values
        return torch.from_numpy(block)

    times = place(newest.times, first)  # padding's as in `EventTensors.windows`
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
    towers to count upwards. Computed in blocks of users; the copy takes 5 bytes an event.
    """
    item, kind = np.empty_like(events.item), np.empty_like(events.kind)
    for first, last in user_blocks(events.offsets):
        own = slice(int(events.offsets[first]), int(events.offsets[last]))
        # Held-out events stay after the cut, even in the same second as training events.
        held_out = np.arange(own.start, own.stop) >= end[events.user[own]]
        lot = np.where(held_out, 2.0, rng.random(own.stop - own.start))
        order = own.start + np.lexsort((lot, held_out, events.time[own], events.user[own]))
        item[own], kind[own] = events.item[order], events.kind[order]
    return replace(events, item=item, kind=kind)


def passes_per_epoch(events: Events, end: LongArray, max_length: int, least: int) -> int:
    """Return how many passes over the users an epoch needs for about `least` windows, at least one.

    One pass over a few hundred users is only a few dozen steps. A training with another end that runs for the
    epochs chosen here takes the same number of passes.
    """
    count = len(training_windows(events, end, max_length, np.random.default_rng(0))[0])
    return max(1, round(least / count)) if count else 1


def epoch_windows(
    events: Events, end: LongArray, max_length: int, rng: np.random.Generator, passes: int = 1, most: int = 0
) -> tuple[LongArray, LongArray]:
    """Return the windows of one epoch: one or several passes over all users, each cut anew, or a sample.

    Args:
        events: the users' events.
        end: position of each user's first event after training, [users].
        max_length: events of a window after its first.
        rng: generator of the cuts and the sample.
        passes: passes over the users.
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


@dataclass(frozen=True)
class TrainingWindows:
    """Windows of one step, and the positions that are predicted."""

    events: SequenceBatch
    """[batch, length]; each position but the last predicts the next one."""
    predicts: Tensor
    """Indices into [batch, length - 1], flattened, that hold an event, [positions]; with a mask the host
    would synchronise to get their number."""

    @classmethod
    def cut(
        cls, tensors: EventTensors, start: Tensor, stop: Tensor, length: int, positions: int
    ) -> TrainingWindows:
        """Collect the slices [start, stop), each [batch], of known greatest length and predictions."""
        sizes = stop - start - 1  # [batch] predictions of each
        owner = torch.repeat_interleave(sizes, output_size=positions)  # [positions]
        number = torch.arange(positions, device=start.device) - (sizes.cumsum(0) - sizes)[owner]
        predicts = (owner + 1) * (length - 1) - sizes[owner] + number
        return cls(tensors.windows(start, stop, length), predicts)

    @classmethod
    def without_predictions(
        cls, tensors: EventTensors, start: Tensor, stop: Tensor, length: int
    ) -> TrainingWindows:
        """Collect slices in which nothing is predicted, for a process whose shard is empty."""
        return cls(tensors.windows(start, stop, length), start[:0])

    def to(self, device: torch.device) -> TrainingWindows:
        """Move every tensor."""
        return TrainingWindows(self.events.to(device), self.predicts.to(device))


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
