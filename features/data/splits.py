"""Evaluation splits: queries, their histories and their relevant items.

Both protocols cut every user's sequence into prefixes, so a split is a few positions per user, and nothing
after a position can leak into what is computed before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from conf.errors import InputError
from conf.schema import SplitConfig, SplitKind
from features.data.dataset import BoolArray, Dataset, Events, IntArray, LongArray
from features.data.prefixes import prefix_blocks, user_blocks

BLOCK = 1 << 20
"""Events read at a time."""
_BINS = 1 << 16
_RANKER_SHARE = 10
"""Under leave-one-out the ranking head gets at most one of this many training events."""


@dataclass(frozen=True)
class Queries:
    """Queries of a recommender: user, history and the items chosen next."""

    user: IntArray  # [queries]
    end: LongArray  # [queries] history is events[offsets[user] : end]
    time: LongArray  # [queries] Unix seconds of the query
    target_offsets: LongArray  # [queries + 1]
    targets: IntArray  # [total targets] distinct items per query
    target_kinds: IntArray  # [total targets] strongest kind (lowest code) with which each was chosen

    def __len__(self) -> int:
        return len(self.user)

    def select(self, index: LongArray | BoolArray) -> Queries:
        """Return the chosen queries, in the order given."""
        index = np.flatnonzero(index) if index.dtype == np.bool_ else np.asarray(index, dtype=np.int64)
        sizes = np.diff(self.target_offsets)[index]
        positions = ragged_ranges(self.target_offsets[:-1][index], sizes)
        return Queries(
            self.user[index],
            self.end[index],
            self.time[index],
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
            self.targets[positions],
            self.target_kinds[positions],
        )


@dataclass(frozen=True)
class Split:
    """Windows of one dataset under one protocol; every `*_end` is a position per user, [users]."""

    kind: SplitKind
    tower_end: LongArray
    """The towers that score the ranker's training queries learn from events before this."""
    train_end: LongArray
    """The published towers learn from events before this."""
    state_end: LongArray
    """Statistics (popularity, co-occurrence) of the test queries are computed from events before this."""
    tower_time: int
    train_time: int
    state_time: int
    """Times of the positions: recency is measured from here."""
    ranker: Queries
    valid: Queries
    test: Queries


def ragged_ranges(starts: LongArray, sizes: LongArray) -> LongArray:
    """Concatenate `range(start, start + size)` for every pair."""
    total = int(sizes.sum())
    if total == 0:
        return np.zeros(0, dtype=np.int64)
    shifts = np.repeat(starts - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
    positions: LongArray = np.arange(total, dtype=np.int64) + shifts
    return positions


def make_queries(
    events: Events, users: IntArray, start: LongArray, stop: LongArray, time: LongArray, relevant: BoolArray
) -> Queries:
    """Return a query per user at `start`, its targets the distinct relevant items of events[start:stop].

    Computed for blocks of users; the result takes 8 bytes a target.
    """
    sizes = np.zeros(len(users), dtype=np.int64)
    items, kinds = [np.zeros(0, dtype=np.int32)], [np.zeros(0, dtype=np.int32)]
    for low, high in user_blocks(np.concatenate([[0], np.cumsum(stop - start)]), BLOCK):
        length = stop[low:high] - start[low:high]
        positions = ragged_ranges(start[low:high], length)
        owner = np.repeat(np.arange(high - low), length)
        keep = relevant[events.kind[positions]]
        positions, owner = positions[keep], owner[keep]
        order = np.lexsort((events.kind[positions], events.item[positions], owner))
        positions, owner = positions[order], owner[order]
        item = events.item[positions]
        first = np.ones(len(item), dtype=bool)
        first[1:] = (owner[1:] != owner[:-1]) | (item[1:] != item[:-1])
        items.append(item[first])
        kinds.append(events.kind[positions[first]].astype(np.int32))
        sizes[low:high] = np.bincount(owner[first], minlength=high - low)
    keep = sizes > 0
    offsets = np.concatenate([[0], np.cumsum(sizes[keep])]).astype(np.int64)
    return Queries(
        users[keep], start[keep], time[keep], offsets, np.concatenate(items), np.concatenate(kinds)
    )


def position_at(events: Events, time: int) -> LongArray:
    """Return each user's first position that is not before `time`, [users]."""
    offsets = events.offsets
    earlier = np.empty(len(offsets), dtype=np.int64)  # [users + 1] events before `time` ahead of each user's
    total, low = 0, 0
    for start in range(0, len(events), BLOCK):
        counts = np.cumsum(events.time[start : start + BLOCK] < time)
        high = int(np.searchsorted(offsets, start + len(counts)))
        inside = offsets[low:high] - start
        earlier[low:high] = total + np.where(inside > 0, counts[inside - 1], 0)
        total, low = total + int(counts[-1]), high
    earlier[low:] = total
    first: LongArray = offsets[:-1] + np.diff(earlier)
    return first


def events_before(events: Events, time: int) -> int:
    """Count the events before a time."""
    starts = range(0, len(events), BLOCK)
    return sum(int(np.count_nonzero(events.time[start : start + BLOCK] < time)) for start in starts)


def nth_time(events: Events, place: int) -> int:
    """Return the time at a place of all events in the order of their times, from 0.

    Times are counted in ever narrower bins, which takes no more memory with more events.
    """
    low, high = int(events.time.min()), int(events.time.max())
    while True:
        width = (high - low) // _BINS + 1
        counts = np.zeros(_BINS + 1, dtype=np.int64)
        for start in range(0, len(events), BLOCK):
            times = events.time[start : start + BLOCK]
            inside = times[(times >= low) & (times <= high)]
            counts += np.bincount((inside - low) // width, minlength=_BINS + 1)
        until = np.cumsum(counts)
        chosen = int(np.searchsorted(until, place, side="right"))
        if width == 1:
            return low + chosen
        place -= int(until[chosen] - counts[chosen])
        low, high = low + chosen * width, min(low + (chosen + 1) * width - 1, high)


def _leave_one_out(dataset: Dataset, relevant: BoolArray, ranker_lists: int) -> Split:
    events = dataset.events
    lengths = events.lengths()
    end = events.offsets[1:]
    users = np.arange(events.users, dtype=np.int32)

    def next_of(chosen: IntArray, position: LongArray) -> Queries:
        """Return a query for the event at each position."""
        # The query's time is that of the last known event: the target's own time would leak information.
        return make_queries(events, chosen, position, position + 1, events.time[position - 1], relevant)

    def last(held_out: int) -> Queries:
        """Return queries for the `held_out`-th event from the end, where enough history is left."""
        chosen = users[lengths >= 3]
        return next_of(chosen, end[chosen] - held_out)

    def latest(stop: LongArray) -> int:
        """Return the time of the last event before the positions `stop`."""
        return max(
            (int(events.time[block].max(initial=0)) for block in prefix_blocks(events, stop)), default=0
        )

    # A user with too few events to hold out keeps them all for training.
    train_end = np.where(lengths >= 3, end - 2, end)
    # One list each of a thousand users is too little for the ranking head.
    most = -(-ranker_lists // max(int((lengths >= 4).sum()), 1))
    lists = np.where(lengths >= 4, np.clip((lengths - 2) // _RANKER_SHARE, 1, most), 0)
    tower_end = train_end - lists
    return Split(
        SplitKind.leave_one_out,
        tower_end,
        train_end,
        train_end,
        latest(tower_end),
        latest(train_end),
        latest(train_end),
        ranker=next_of(np.repeat(users, lists), ragged_ranges(tower_end, lists)),
        valid=last(2),
        test=last(1),
    )


def _cut_times(dataset: Dataset, config: SplitConfig) -> tuple[int, int, int]:
    """Return the starts of the ranker, validation and test windows in Unix seconds."""
    events = dataset.events
    total = len(events)

    def quantile(share: float) -> int:
        return nth_time(events, min(int(total * share), total - 1))

    def iso(text: str, field: str) -> int:
        try:
            moment = datetime.fromisoformat(text)
        except ValueError as error:
            raise InputError(f"split.{field}: '{text}' is not an ISO date or time") from error
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())

    test = iso(config.test_start, "test_start") if config.test_start else quantile(1 - config.test_fraction)
    before_test = events_before(events, test) / total
    valid = (
        iso(config.valid_start, "valid_start")
        if config.valid_start
        else quantile(max(before_test - config.valid_fraction, 0.0))
    )
    before_valid = events_before(events, valid) / total
    ranker = quantile(max(before_valid - config.ranker_fraction, 0.0))
    if not events.time.min() < ranker < valid < test <= events.time.max():
        raise InputError(
            "split=global_time: the cut times leave an empty window "
            f"({np.datetime64(ranker, 's')}, {np.datetime64(valid, 's')}, {np.datetime64(test, 's')}); "
            "set split.valid_start and split.test_start inside the data's time range"
        )
    return ranker, valid, test


def _global_time(dataset: Dataset, config: SplitConfig, relevant: BoolArray) -> Split:
    if not dataset.has_time:
        raise InputError(
            "split=global_time needs timestamps; this dataset has only an order (use split=leave_one_out)"
        )
    events = dataset.events
    ranker_time, valid_time, test_time = _cut_times(dataset, config)
    end = events.offsets[1:]
    at_ranker, at_valid, at_test = (position_at(events, t) for t in (ranker_time, valid_time, test_time))
    users = np.arange(events.users, dtype=np.int32)

    def window(start: LongArray, stop: LongArray, time: int) -> Queries:
        return make_queries(events, users, start, stop, np.full(len(users), time, dtype=np.int64), relevant)

    return Split(
        SplitKind.global_time,
        at_ranker,
        at_valid,
        at_test,
        ranker_time,
        valid_time,
        test_time,
        ranker=window(at_ranker, at_valid, ranker_time),
        valid=window(at_valid, at_test, valid_time),
        test=window(at_test, end, test_time),
    )


def relevant_kinds(dataset: Dataset, target_events: list[str]) -> BoolArray:
    """Tell which kinds count as relevant, [kinds].

    Raises:
        InputError: a kind that no event has.
    """
    unknown = [k for k in target_events if k not in dataset.kinds]
    if unknown:
        raise InputError(
            f"evaluation.target_events: no event of kind '{unknown[0]}'; kinds: {', '.join(dataset.kinds)}"
        )
    relevant = np.array(
        [(k in target_events) if target_events else True for k in dataset.kinds], dtype=np.bool_
    )
    relevant &= dataset.kind_weights > 0
    return relevant


def exclude_seen(dataset: Dataset, split: Split, setting: bool | None) -> bool:
    """Decide whether a user's own past items are left out of lists.

    Without a setting, shops where people come back for the same item keep them: when more than 5 % of the
    validation targets are in the user's own history.
    """
    if setting is not None:
        return setting
    events, queries = dataset.events, split.valid
    items = len(dataset.catalogue)
    begin = events.offsets[queries.user]
    sizes = queries.end - begin
    repeated = 0
    for low, high in user_blocks(np.concatenate([[0], np.cumsum(sizes)]), BLOCK):
        positions = ragged_ranges(begin[low:high], sizes[low:high])
        history = np.repeat(np.arange(low, high), sizes[low:high]) * items + events.item[positions]
        targets = slice(int(queries.target_offsets[low]), int(queries.target_offsets[high]))
        owner = np.repeat(np.arange(low, high), np.diff(queries.target_offsets[low : high + 1]))
        repeated += int(np.isin(owner * items + queries.targets[targets], history).sum())
    return repeated / len(queries.targets) <= 0.05 if len(queries.targets) else True


def make_split(dataset: Dataset, config: SplitConfig, target_events: list[str]) -> Split:
    """Divide a dataset by the configured protocol.

    Args:
        dataset: the prepared dataset.
        config: protocol and cut times.
        target_events: kinds that count as relevant; empty means every kind with a positive weight.

    Raises:
        InputError: unknown target kind, no timestamps for global_time, or an empty window.

    """
    relevant = relevant_kinds(dataset, target_events)
    if config.kind is SplitKind.leave_one_out:
        return _leave_one_out(dataset, relevant, config.ranker_lists)
    return _global_time(dataset, config, relevant)
