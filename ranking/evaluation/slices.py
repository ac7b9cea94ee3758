"""Slices of an average: cold and tail items, new users, short histories, same-day targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from features.data.dataset import BoolArray, Dataset, Events, LongArray
from features.data.splits import Queries, Split, ragged_ranges

DAY = 86_400
HISTORY_BUCKETS = ((0, 0), (1, 4), (5, 9), (10, 19), (20, 49), (50, None))
"""Smallest and largest number of events in a history; None is open."""


@dataclass(frozen=True)
class Slice:
    """A subset of the queries, or of their targets."""

    name: str
    about: str
    """One phrase for readers of the report."""
    queries: Queries
    """The queries of the slice, with only its targets."""
    index: LongArray  # [slice] position of each query among all
    targets: BoolArray  # [total targets] mask of its targets among those of all queries
    of_targets: bool
    """Whether it divides the targets of a query, and not the queries."""


def restrict_targets(queries: Queries, keep: BoolArray) -> tuple[Queries, LongArray]:
    """Return the queries restricted to some targets, without those left with none.

    Args:
        queries: all queries.
        keep: [total targets] mask.

    Returns:
        The restricted queries, and the position of each among all.
    """
    owner = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
    sizes = np.bincount(owner[keep], minlength=len(queries))
    index = np.flatnonzero(sizes).astype(np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes[index])]).astype(np.int64)
    part = Queries(
        queries.user[index],
        queries.end[index],
        queries.time[index],
        offsets,
        queries.targets[keep],
        queries.target_kinds[keep],
    )
    return part, index


def head_items(counts: LongArray) -> BoolArray:
    """Return the mask of the most frequent items that make up half of the events, [items]; ties by row."""
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    head = np.zeros(len(counts), dtype=np.bool_)
    head[order] = before < counts.sum() / 2
    return head & (counts > 0)


def target_times(events: Events, queries: Queries) -> LongArray:
    """Return when each target was chosen, [total targets] Unix seconds.

    That is the user's first event with this item and kind at or after `queries.end`.
    """
    owner = np.arange(len(queries), dtype=np.int64)
    stop = events.offsets[queries.user + 1]
    positions = ragged_ranges(queries.end, stop - queries.end)
    query_of_event = np.repeat(owner, stop - queries.end)
    span = max(int(events.item.max(initial=0)), int(queries.targets.max(initial=0))) + 1
    kinds = max(int(events.kind.max(initial=0)), int(queries.target_kinds.max(initial=0))) + 1
    keys = (query_of_event * span + events.item[positions]) * kinds + events.kind[positions]
    order = np.argsort(keys, kind="stable")  # positions ascend within a key: the first is the earliest
    target_keys = np.repeat(owner, np.diff(queries.target_offsets)) * span + queries.targets
    target_keys = target_keys * kinds + queries.target_kinds
    times: LongArray = events.time[positions[order[np.searchsorted(keys[order], target_keys)]]]
    return times


def same_day(events: Events, queries: Queries) -> tuple[BoolArray, BoolArray]:
    """Return the masks of targets on the UTC day of the last history event, and of later targets.

    Returns:
        Masks [total targets] each; both False without a history.
    """
    owner = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
    known = (queries.end > events.offsets[queries.user])[owner]
    previous = events.time[np.maximum(queries.end - 1, 0)][owner] // DAY
    same = target_times(events, queries) // DAY == previous
    return known & same, known & ~same


def make_slices(dataset: Dataset, split: Split, queries: Queries, counts: LongArray) -> list[Slice]:
    """Return the slices that a result reports.

    Args:
        dataset: the dataset.
        split: its protocol; training ends at `train_end`.
        queries: validation or test queries.
        counts: [items] events before `train_end`.
    """
    events = dataset.events
    slices: list[Slice] = []

    def by_target(name: str, about: str, keep: BoolArray) -> None:
        slices.append(Slice(name, about, *restrict_targets(queries, keep), keep, of_targets=True))

    def by_query(name: str, about: str, keep: BoolArray) -> None:
        targets = np.repeat(keep, np.diff(queries.target_offsets))
        slices.append(
            Slice(name, about, queries.select(keep), np.flatnonzero(keep), targets, of_targets=False)
        )

    head = head_items(counts)[queries.targets]
    cold = counts[queries.targets] == 0
    by_target("head_items", "targets among the items that make up half of the training events", head)
    by_target("tail_items", "targets among the other items with training events", ~head & ~cold)
    by_target("cold_items", "targets without any training event", cold)
    new = split.train_end[queries.user] <= events.offsets[queries.user]
    by_query("new_users", "users without any event before training ends", new)
    length = queries.end - events.offsets[queries.user]
    for low, high in HISTORY_BUCKETS:
        inside = (length >= low) & (length <= (np.inf if high is None else high))
        label = f"{low}_or_more" if high is None else f"{low}" if low == high else f"{low}_to_{high}"
        by_query(f"history_{label}", f"users with {label.replace('_', ' ')} events in their history", inside)
    for code, kind in enumerate(dataset.kinds):
        if (queries.target_kinds == code).any():
            by_target(f"event_{kind}", f"targets chosen by '{kind}'", queries.target_kinds == code)
    if dataset.has_time:
        same, later = same_day(events, queries)
        by_target("same_day_as_previous", "targets on the same UTC day as the last known event", same)
        by_target("later_day", "targets on a later day than the last known event", later)
    return slices
