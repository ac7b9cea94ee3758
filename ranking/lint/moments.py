"""Events at moments that cannot be right, and windows of the split that reach into the future."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from conf.schema import Severity
from features.data.dataset import BoolArray, Events, LongArray
from features.data.splits import Queries, position_at, ragged_ranges
from features.values.times import FIRST_PLAUSIBLE
from ranking.evaluation.slices import target_times
from ranking.lint.findings import Finding, Worth
from ranking.lint.material import Material, many, moment, share
from ranking.lint.worth import Measured, Yardstick

_REFITS = ((1_000_000, 40), (10_000_000, 10))
"""Refits by which the events of others after a query are taken away, up to so many events; 4 above."""
_RAISED = 0.001
"""Share of contradicted times above which they are a warning."""


def impossible_times(material: Material) -> Iterator[Finding]:
    """Find events in the future, and events before 1990 such as 1970, the zero of Unix time."""
    if not material.dataset.has_time:
        return
    times = material.events.time
    for name, mask, what, fix in (
        (
            "future",
            times > material.now,
            "later than the present",
            "a wrong time zone, unit or order of day and month: set data.timestamp_format, or leave the "
            "rows out",
        ),
        (
            "before_1990",
            times < FIRST_PLAUSIBLE,
            "before 1990",
            "missing times read as zero, or a wrong unit: empty them in the file, or set "
            "data.timestamp_format",
        ),
    ):
        count = int(mask.sum())
        if not count:
            continue
        at = int(np.flatnonzero(mask)[0])
        events = material.events
        yield Finding(
            check="event_times",
            severity=Severity.serious,
            title=f"{many(count, 'event is', 'events are')} {what}",
            count=count,
            total=len(events),
            unit="events",
            example=f"{material.user(int(events.user[at]))}, {material.item(int(events.item[at]))}, "
            f"{moment(int(times[at]))}",
            meaning="Times order the events and cut the windows: a wrong time moves an event of the past "
            "into the test window, or one of the test window into training.",
            fix=fix,
            measure=partial(_without, mask=mask, name=name),
            least=Severity.serious,
        )


def _without(yardstick: Yardstick, mask: BoolArray, name: str) -> Worth | None:
    return yardstick.changed(
        f"item_knn, all events against those without the {name.replace('_', ' ')} ones, cut anew",
        lambda material: material.keeping(~mask, same_cuts=False),
    )


def contradicted_times(material: Material) -> Iterator[Finding]:
    """Find events whose time contradicted their order, which `prepare` counted and raised."""
    count = int(material.dataset.info.get("timestamps_raised", 0))
    total = len(material.events)
    if count:
        yield Finding(
            check="event_times",
            severity=Severity.warning if count > _RAISED * total else Severity.note,
            title=f"{many(count, 'event time contradicts', 'event times contradict')} the order of events "
            f"({share(count, total)})",
            count=count,
            total=total,
            unit="events",
            example="each was raised to the time of the event before it",
            meaning="Either the clocks of several sources differ or the column of the order is none; an "
            "event with a raised time may cross a cut.",
            fix="correct the clocks, or leave the column of the order out with data.columns",
            unmeasured="the times as they were are not in the prepared dataset",
        )


def _wrong_side(material: Material, queries: Queries) -> tuple[LongArray, LongArray]:
    """Return positions of history events after their query, and indices of targets before it."""
    events = material.events
    begin = events.offsets[queries.user]
    sizes = queries.end - begin
    positions = ragged_ranges(begin, sizes)
    known = np.repeat(queries.time, sizes)
    late = events.time[positions] >= known if material.by_time else events.time[positions] > known
    asked = np.repeat(queries.time, np.diff(queries.target_offsets))
    early = target_times(events, queries) < asked
    return positions[late], np.flatnonzero(early)


def windows(material: Material) -> Iterator[Finding]:
    """Compare every window of the split with the times of its events."""
    if not material.dataset.has_time:
        return
    split, events = material.split, material.events
    wrong = []
    for queries in (split.ranker, split.valid, split.test):
        late, early = _wrong_side(material, queries)
        owner = np.repeat(queries.end, np.diff(queries.target_offsets))
        wrong += [late, owner[early]]
    if material.by_time:
        begin = events.offsets[:-1]
        for end, time in (
            (split.tower_end, split.tower_time),
            (split.train_end, split.train_time),
            (split.state_end, split.state_time),
        ):
            positions = ragged_ranges(begin, end - begin)
            wrong.append(positions[events.time[positions] >= time])
    found = np.unique(np.concatenate(wrong))
    if not len(found):
        return
    at = int(found[0])
    yield Finding(
        check="windows",
        severity=Severity.serious,
        title=f"{many(len(found), 'event is', 'events are')} on the wrong side of a cut",
        count=len(found),
        total=len(events),
        unit="events",
        example=f"{material.user(int(events.user[at]))}, {material.item(int(events.item[at]))}, "
        f"{moment(int(events.time[at]))}",
        meaning="An event is trained or counted, or part of a history, although it is later than the query "
        "that it informs, or it is a target although it is earlier.",
        fix="sort each user's events by time: leave the column of the order out with data.columns, and "
        "prepare the dataset again",
        measure=lambda yardstick: yardstick.changed(
            "item_knn, all events against events sorted by time", _sorted_by_time
        ),
        least=Severity.serious,
    )


def _sorted_by_time(material: Material) -> Material:
    events = material.events
    order = np.lexsort((events.time, events.user))
    return material.with_events(
        Events(events.user, events.item[order], events.kind[order], events.time[order], events.offsets)
    )


def others_later(material: Material) -> Iterator[Finding]:
    """State how much of what leave-one-out trains on is later than the queries."""
    split, events = material.split, material.events
    queries = split.test
    if material.by_time or not material.dataset.has_time or not len(queries):
        return
    times = np.sort(events.time[material.counted])
    later = 1 - np.searchsorted(times, queries.time, side="right") / max(len(times), 1)
    count = int((later > 0).sum())
    if not count:
        return
    latest = int(np.argmax(later))
    yield Finding(
        check="later_events_of_others",
        severity=Severity.note,
        title=f"leave-one-out: {later.mean():.0%} of the training events are later than the query, on "
        "average",
        count=count,
        total=len(queries),
        unit="test queries with later training events",
        example=f"{material.user(int(queries.user[latest]))}: {later[latest]:.0%} of the training events are "
        f"later than the query of {moment(int(queries.time[latest]))}",
        meaning="Published tables of this protocol share it: what is popular and bought together is "
        "learned from the future of most queries (Ji et al. 2023), so recall is higher than in production.",
        fix="split=global_time estimates production; compare leave-one-out with leave-one-out only",
        measure=_rolling,
        most=Severity.warning,
    )


def _rolling(yardstick: Yardstick) -> Worth | None:
    """Compare one fit on all training events with several, each on the events before its queries."""
    material, queries = yardstick.material, yardstick.queries()
    order = np.argsort(queries.time, kind="stable")
    refits = next((n for most, n in _REFITS if len(material.events) <= most), 4)
    users, values = [], []
    for part in np.array_split(order, min(refits, len(order))):
        chosen = queries.select(np.sort(part))
        before = position_at(material.events, int(chosen.time.min()) + 1)
        end = np.minimum(before, material.split.state_end)
        measured = yardstick.measure(yardstick.lists(material, chosen, end=end), chosen)
        users.append(measured.users)
        values.append(measured.values)
    every = np.concatenate(users)
    by_user = np.argsort(every)
    return yardstick.compare(
        f"item_knn, fitted on all training events against {refits} refits, each on the events before its "
        "queries (at most: the events between a refit and its queries are missing, too)",
        yardstick.plain,
        Measured(every[by_user], np.concatenate(values)[by_user]),
    )
