"""Properties of the data that a reader of a result should have beside it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from conf.schema import Severity
from features.data.dataset import BoolArray
from features.data.splits import Queries
from ranking.evaluation.slices import same_day
from ranking.lint.findings import Finding, Worth
from ranking.lint.material import Material, counts_before, many, share
from ranking.lint.worth import Yardstick

_EVERYWHERE = 0.2
"""Share of the users with an item from which it is in nearly every basket."""
_LEAST_USERS = 50
_CORE = 3
"""Fewest events of every item from which a k-core is suspected."""


def same_day_targets(material: Material) -> Iterator[Finding]:
    """State how many targets are on the day of the last known event."""
    queries = material.split.test
    if not material.dataset.has_time or not len(queries):
        return
    same, _ = same_day(material.events, queries)
    count = int(same.sum())
    if not count:
        return
    at = int(np.flatnonzero(same)[0])
    owner = np.repeat(queries.user, np.diff(queries.target_offsets))
    yield Finding(
        check="same_day_targets",
        severity=Severity.note,
        title=f"{share(count, len(same))} of the test targets are on the day of the last known event",
        count=count,
        total=len(same),
        unit="test targets",
        example=f"{material.user(int(owner[at]))}, {material.item(int(queries.targets[at]))}",
        meaning="Completing a basket is easier than predicting the next one; a single average hides which "
        "of the two a model does.",
        fix="read the slices same_day_as_previous and later_day beside the average",
        measure=_later_days,
        most=Severity.note,
    )


def _later_days(yardstick: Yardstick) -> Worth | None:
    events = yardstick.material.events

    def left_out(queries: Queries) -> BoolArray:
        """Return the queries with a target on the day of the last known event."""
        same, _ = same_day(events, queries)
        owner = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
        found: BoolArray = np.bincount(owner[same], minlength=len(queries)) > 0
        return found

    return yardstick.of_targets(
        "item_knn, all queries against those with targets on later days alone", left_out
    )


def ubiquitous_items(material: Material) -> Iterator[Finding]:
    """State items that a fifth of the users have, such as carrier bags and deposits."""
    events = material.events
    pairs = np.unique(events.user.astype(np.int64) * material.items + events.item)
    owners = np.bincount(pairs % material.items, minlength=material.items)
    users = int((events.lengths() > 0).sum())
    if users < _LEAST_USERS:
        return
    rows = np.flatnonzero(owners > _EVERYWHERE * users)
    if not len(rows):
        return
    top = int(rows[np.argmax(owners[rows])])
    mask = np.zeros(material.items, dtype=np.bool_)
    mask[rows] = True
    yield Finding(
        check="ubiquitous_items",
        severity=Severity.note,
        title=f"{many(len(rows), 'item is', 'items are')} in the histories of more than {_EVERYWHERE:.0%} "
        "of the users",
        count=len(rows),
        total=material.items,
        unit="items",
        example=f"{material.item(top)}: {share(owners[top], users)} of the users",
        meaning="Carrier bags, deposits and postage are hit by every list and say nothing about taste.",
        fix="leave out what is not recommended, by a filter or from the items file",
        measure=partial(_other_targets, mask=mask),
        most=Severity.note,
    )


def _other_targets(yardstick: Yardstick, mask: BoolArray) -> Worth | None:
    def left_out(queries: Queries) -> BoolArray:
        owner = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
        found: BoolArray = np.bincount(owner[mask[queries.targets]], minlength=len(queries)) > 0
        return found

    return yardstick.of_targets("item_knn, all queries against those without these targets", left_out)


def unknown_users(material: Material) -> Iterator[Finding]:
    """State how many test queries have no history."""
    queries = material.split.test
    empty = queries.end <= material.events.offsets[queries.user]
    count = int(empty.sum())
    if not count:
        return
    yield Finding(
        check="users_without_history",
        severity=Severity.note,
        title=f"{share(count, len(queries))} of the test queries have no history",
        count=count,
        total=len(queries),
        unit="test queries",
        example=material.user(int(queries.user[np.flatnonzero(empty)[0]])),
        meaning="Every personalised model answers them with the same list, which dilutes differences between "
        "models.",
        fix="read the slice history_0 beside the average",
        measure=_with_history,
        most=Severity.note,
    )


def _with_history(yardstick: Yardstick) -> Worth | None:
    events = yardstick.material.events
    return yardstick.of_targets(
        "item_knn, all queries against those with a history",
        lambda queries: queries.end <= events.offsets[queries.user],
    )


def core_filter(material: Material) -> Iterator[Finding]:
    """State that items were chosen by a k-core that counted test events."""
    events = material.events
    every = np.bincount(events.item, minlength=material.items)
    sold = every > 0
    if not sold.any() or every[sold].min() < _CORE or events.lengths()[events.lengths() > 0].min() < _CORE:
        return
    least = int(every[sold].min())
    before = counts_before(material)
    below = sold & (before < least)
    if not below.any():
        return
    at = int(np.flatnonzero(below)[0])
    yield Finding(
        check="core_filter",
        severity=Severity.note,
        title=f"every item has {least} events or more, {int(below.sum()):,} only because test events count",
        count=int(below.sum()),
        total=int(sold.sum()),
        unit="items",
        example=f"{material.item(at)}: {before[at]} events before the cut, {every[at]} in all",
        meaning="A k-core over all events selects items and users by what happens in the test window, and "
        "leaves out the rare ones that are hardest (Sun et al. 2020).",
        fix="state the k-core beside the result; filter by training events alone for an estimate of "
        "production",
        measure=partial(_other_targets, mask=below),
        most=Severity.note,
    )
