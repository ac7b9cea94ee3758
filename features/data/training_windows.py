"""Training queries of the ranking head, and the cut up to which published models are trained."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from conf.schema import Refit, SplitKind
from features.data.dataset import BoolArray, Dataset, Events, LongArray
from features.data.prefixes import item_counts
from features.data.splits import Queries, Split, make_queries, position_at, relevant_kinds

MOST_OF_A_REFIT = 2
"""Most moments of a refit as a multiple of those of training, as for windows of equal numbers of events."""


@dataclass(frozen=True)
class Cut:
    """The end of training data."""

    end: LongArray  # [users] position of each user's first event after it
    time: int
    """Its time in Unix seconds."""


@dataclass(frozen=True)
class RankerWindow:
    """Training queries of the ranking head, and the cut of their statistics."""

    queries: Queries
    end: LongArray  # [users] position of each user's first event after the cut
    time: int
    """Unix seconds of the cut."""
    until: LongArray  # [users] position of each user's first event after the targets' time
    after_training: bool = False
    """Whether the validated towers were trained on events before it, so that they may score it."""

    def on_sale(self, events: Events, items: int) -> BoolArray:
        """Return which items occur before the end of the window, and so were on sale, [items].

        A data set lists items that arrived later, too. As candidates they would always be negatives, and
        teach that an item without events is never chosen.
        """
        met: BoolArray = item_counts(events, self.until, items) > 0
        return met


def full_history_cut(dataset: Dataset) -> Cut:
    """Return the cut after the last event."""
    return Cut(dataset.events.offsets[1:], int(dataset.events.time.max(initial=0)))


def refit_cut(dataset: Dataset, split: Split, refit: Refit) -> Cut | None:
    """Return the cut up to which published models are refitted, or None for no refit."""
    if refit is Refit.everything:
        return full_history_cut(dataset)
    # Published tables under leave-one-out compare models that have not learned from the validation event.
    if refit is Refit.before_test and split.kind is SplitKind.global_time:
        return Cut(split.state_end, split.state_time)
    return None


def ranker_windows(
    dataset: Dataset, split: Split, target_events: list[str], cuts: int, until: Cut | None = None
) -> Iterator[RankerWindow]:
    """Yield queries at several moments within the ranker's window, each made when it is asked for.

    A window has a query for every active user, of which training draws a few thousand.

    Targets cover as much time as validation does, because the best list for the coming weeks differs from
    that for the coming days. The last moments have the time that is left, at least half as much.

    Args:
        dataset: the dataset.
        split: its split; the window runs from `tower_time` to `train_time`.
        target_events: kinds that count as relevant, as for the split.
        cuts: moments at equal distances, the first at the window's start; leave-one-out has just one.
        until: of a refit: the window extends to there, with moments in proportion to its length, up to
            `MOST_OF_A_REFIT` times `cuts`: every moment takes a model of its own, and where most events share
            a minute the rest of the time is thousands of times longer. Leave-one-out adds the validation
            events.
    """
    if split.kind is SplitKind.leave_one_out:
        yield RankerWindow(split.ranker, split.tower_end, split.tower_time, split.train_end)
        if until is not None:
            yield RankerWindow(split.valid, split.train_end, split.train_time, split.state_end, True)
        return
    events, relevant = dataset.events, relevant_kinds(dataset, target_events)
    users = np.arange(events.users, dtype=np.int32)
    horizon = split.state_time - split.train_time
    last = Cut(split.train_end, split.train_time)
    if until is not None:
        longer = (until.time - split.tower_time) / (split.train_time - split.tower_time)
        cuts = round(cuts * min(longer, MOST_OF_A_REFIT))
        last = until
    latest = max(last.time - horizon // 2, split.tower_time)
    for time in np.unique(np.linspace(split.tower_time, latest, cuts).astype(np.int64)):
        start, stop = position_at(events, int(time)), position_at(events, int(time) + horizon)
        times = np.full(events.users, time, dtype=np.int64)
        stop = np.minimum(stop, last.end)
        queries = make_queries(events, users, start, stop, times, relevant)
        yield RankerWindow(queries, start, int(time), stop, bool(time >= split.train_time))
