"""Order within equal times: of a day, a basket or an invoice, whose sequence carries no time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from conf.schema import Severity
from features.data.dataset import BoolArray, Events, IntArray, LongArray
from features.data.splits import Queries
from ranking.lint.findings import Finding, Worth
from ranking.lint.material import Material, share
from ranking.lint.worth import Yardstick

_LEAST_PAIRS = 200
"""Pairs of neighbours within equal times below which their order says nothing."""
_FAMILIAR = 1.3
"""Pairs that occur again, as a multiple of those after shuffling, above which the order is suspected."""
_EXCESS = 0.1
"""Share of the pairs by which those that occur again must exceed those after shuffling."""
_SORTED = 0.6
"""Share of ascending (or descending) neighbours above which equal times are sorted."""


def shuffled_ties(events: Events, seed: int) -> Events:
    """Return the events with those of one user and time in random order."""
    chance = np.random.default_rng(seed).random(len(events), dtype=np.float32)
    order = np.lexsort((chance, events.time, events.user))
    return replace(events, item=events.item[order], kind=events.kind[order])


def _tied_pairs(events: Events, ties: LongArray) -> tuple[IntArray, IntArray]:
    """Return the items of neighbours within equal times, of different items, [pairs] each."""
    first, second = events.item[ties], events.item[ties + 1]
    differ = first != second
    return first[differ], second[differ]


def _familiar(first: IntArray, second: IntArray, items: int) -> float:
    """Return the share of ordered pairs that occur more than once."""
    keys = np.sort(first.astype(np.int64) * items + second)
    if not len(keys):
        return 0.0
    equal = keys[1:] == keys[:-1]
    again = np.zeros(len(keys), dtype=np.bool_)
    again[1:] |= equal
    again[:-1] |= equal
    return float(again.mean())


def order_of_ties(material: Material) -> Iterator[Finding]:
    """Compare how often neighbours within equal times recur with the same after shuffling."""
    ties = material.tied
    if not material.dataset.has_time or len(ties) < _LEAST_PAIRS:
        return
    events, seed = material.events, material.config.seed
    first, second = _tied_pairs(events, ties)
    as_is = _familiar(first, second, material.items)
    chance = _familiar(*_tied_pairs(shuffled_ties(events, seed), ties), material.items)
    suspected = as_is > _FAMILIAR * chance and as_is - chance > _EXCESS
    held = share(_same_time(material, material.split.test).mean(), 1) if len(material.split.test) else "none"
    at = int(ties[0])
    yield Finding(
        check="order_within_time",
        severity=(Severity.warning if material.by_time else Severity.serious) if suspected else Severity.note,
        title=f"{len(ties):,} events share user and time with the next one; neighbours recur in "
        f"{share(as_is, 1)} of the cases, {share(chance, 1)} after shuffling",
        count=len(ties),
        total=len(events),
        unit="events",
        example=f"{material.user(int(events.user[at]))}: {material.item(int(events.item[at]))}, then "
        f"{material.item(int(events.item[at + 1]))}",
        meaning="Within one time the order is that of the file: of a form, a shelf or a database, not of "
        "choices. "
        f"{held} of the test queries ask for an item at the time of the last known event. Where "
        "neighbours recur more often than after shuffling, the order gives the answer away.",
        fix="shuffle equal times with a fixed seed before writing the file, or give every event its own time"
        if suspected
        else "none needed: keep the order as it is",
        measure=_shuffled,
    )


def _shuffled(yardstick: Yardstick) -> Worth | None:
    """Compare the order of the file with a shuffled one, in which other targets are held out."""
    seed = yardstick.material.config.seed
    return yardstick.changed(
        f"item_knn, order of the file against equal times shuffled (seed {seed})",
        lambda material: material.with_events(shuffled_ties(material.events, seed)),
    )


def _same_time(material: Material, queries: Queries) -> BoolArray:
    """Return which queries ask for an item at the time of their last known event, [queries]."""
    events = material.events
    known = queries.end > events.offsets[queries.user]
    previous = events.time[np.maximum(queries.end - 1, 0)]
    following = np.minimum(queries.end, len(events) - 1)
    same: BoolArray = known & (events.time[following] == previous)
    return same


def sorted_ties(material: Material) -> Iterator[Finding]:
    """Find equal times that are sorted by catalogue row, so that the last item is the largest."""
    ties = material.tied
    if not material.dataset.has_time or len(ties) < _LEAST_PAIRS:
        return
    first, second = _tied_pairs(material.events, ties)
    if len(first) < _LEAST_PAIRS:
        return
    ascending = float((second > first).mean())
    up = ascending >= 0.5
    sorted_share = max(ascending, 1 - ascending)
    if sorted_share < _SORTED:
        return
    at = int(ties[0])
    events = material.events
    direction = "ascending" if up else "descending"
    yield Finding(
        check="sorted_within_time",
        severity=Severity.warning if material.by_time else Severity.serious,
        title=f"events of one user and time are sorted by {direction} catalogue row ({sorted_share:.0%} of "
        "neighbours)",
        count=int(sorted_share * len(first)),
        total=len(first),
        unit="pairs of neighbours",
        example=f"{material.user(int(events.user[at]))}: {material.item(int(events.item[at]))}, then "
        f"{material.item(int(events.item[at + 1]))}",
        meaning="The held-out item of a basket is then the one with the largest row (or smallest): a model "
        "that sees rows or ids, or learns which items come last, has the answer.",
        fix="shuffle equal times with a fixed seed before writing the file",
        measure=partial(_beyond_last, up=up),
    )


def _beyond_last(yardstick: Yardstick, up: bool) -> Worth | None:
    """Compare lists in which the rows beyond the last known item come first with lists as they are."""
    events = yardstick.material.events

    def first(queries: Queries, found: IntArray) -> BoolArray:
        last = events.item[np.maximum(queries.end - 1, 0)][:, None]
        beyond: BoolArray = found > last if up else found < last
        return beyond

    return yardstick.reranked("item_knn, rows beyond the last known item first, against its own order", first)
