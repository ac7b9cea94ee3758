"""Users that are no single shopper: bots, tills, guest accounts, and wholesalers among households."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from conf.schema import Severity
from features.data.dataset import FloatArray, LongArray
from ranking.lint.copies import without_users
from ranking.lint.findings import Finding
from ranking.lint.material import Material, many, share

_DAY = 86_400
_SHARED = 0.05
"""Share of the events above which one id is more than a person."""
_MUCH = 0.01
"""Share of the events above which bots are serious."""
_LEAST_EVENTS = 100
_LEAST_USERS = 20
_BASKETS_A_DAY = 20
"""Distinct times on an active day, on average, that no shopper keeps up."""
_EVENTS_A_DAY = 500
_REGULAR = 0.05
"""Standard deviation of the intervals as a share of their mean, below which a program is at work."""
_LEAST_GAPS = 20
_HEAVY = 50
"""Multiple of the median user above which one is no household."""
_NAMES = re.compile(
    r"(?i)^(?:guest|gast|invit[eé]|invitado|ospite|anonym\w*|unknown|unbekannt|walk.?in|cash|kasse|till|pos|register|"
    r"store|shop|default|test|admin|bot|crawler|none|null|nan|n/?a|undefined)[\W_]*\d*$|^(?:-1|0+)$"
)


@dataclass(frozen=True)
class Habits:
    """Numbers per user, [users] each."""

    events: LongArray
    active_days: LongArray
    baskets: LongArray
    """Distinct times."""
    irregularity: FloatArray
    """Standard deviation of the intervals between baskets over their mean; infinite for few of them."""


def habits_of(material: Material) -> Habits:
    """Measure every user."""
    events, users = material.events, material.events.users
    counts = events.lengths()
    everyone = np.zeros(users, dtype=np.int64)
    irregular = np.full(users, np.inf, dtype=np.float32)
    if not material.dataset.has_time:
        return Habits(counts, everyone, everyone, irregular)
    starts = np.zeros(len(events), dtype=np.bool_)
    starts[events.offsets[:-1][counts > 0]] = True
    other_time = np.ones(len(events), dtype=np.bool_)
    other_time[1:] = events.time[1:] != events.time[:-1]
    other_day = np.ones(len(events), dtype=np.bool_)
    other_day[1:] = events.time[1:] // _DAY != events.time[:-1] // _DAY
    baskets = np.bincount(events.user[starts | other_time], minlength=users)
    days = np.bincount(events.user[starts | other_day], minlength=users)
    first = np.flatnonzero(starts | other_time)
    gaps = np.diff(events.time[first]).astype(np.float64)
    inside = events.user[first[1:]] == events.user[first[:-1]]
    owner, gaps = events.user[first[1:]][inside], gaps[inside]
    number = np.bincount(owner, minlength=users)
    mean = np.bincount(owner, weights=gaps, minlength=users) / np.maximum(number, 1)
    square = np.bincount(owner, weights=(gaps - mean[owner]) ** 2, minlength=users) / np.maximum(number, 1)
    enough = (number >= _LEAST_GAPS) & (mean > 0)
    irregular[enough] = (np.sqrt(square) / np.maximum(mean, 1e-9))[enough]
    return Habits(counts, days.astype(np.int64), baskets.astype(np.int64), irregular)


def people(material: Material) -> Iterator[Finding]:
    """Find tills and guests by name and share, bots by rate and regularity, and heavy users."""
    if material.events.users < _LEAST_USERS:
        return
    habits = habits_of(material)
    total = max(len(material.events), 1)
    enough = habits.events >= _LEAST_EVENTS
    named = np.array([bool(_NAMES.match(user)) for user in material.dataset.user_ids], dtype=np.bool_)
    till = enough & ((habits.events > _SHARED * total) | (named & (habits.events > 0)))
    days = np.maximum(habits.active_days, 1)
    dated = bool((material.events.time % _DAY != 0).any())  # with dates alone, a day has one time
    fast = (
        enough
        & (habits.active_days > 0)
        & (habits.events / days >= _EVENTS_A_DAY)
        & (habits.active_days >= 3)
    )
    if dated:
        fast |= enough & (habits.baskets / days >= _BASKETS_A_DAY)
        fast |= habits.irregularity < _REGULAR
    bots = fast & ~till
    heavy = enough & (habits.events > _HEAVY * np.median(habits.events[habits.events > 0])) & ~bots & ~till
    much = habits.events[bots].sum() > _MUCH * total
    for mask, check, severity, what, meaning, fix in (
        (
            till,
            "tills",
            Severity.serious,
            "the events of a till, a guest account or a placeholder",
            "Baskets of many people look like one history: co-occurrence and the towers learn pairs that no "
            "shopper chose.",
            "take such an id for no user with data.missing, or leave it out with "
            "data.filters.max_user_events",
        ),
        (
            bots,
            "bots",
            Severity.serious if much else Severity.warning,
            "the rate or the regularity of a program",
            "Crawlers, monitors and importers fill counts and co-occurrence, and their next step is easy to "
            "predict.",
            "leave their ids out of the events file, or take them for no user with data.missing",
        ),
        (
            heavy,
            "heavy_users",
            Severity.note,
            f"more than {_HEAVY} times the events of the median user",
            "Wholesalers and agencies weigh as much in counts as fifty households, and one query each in "
            "test.",
            "none needed where they are customers; data.filters.max_user_events leaves them out",
        ),
    ):
        if not mask.any():
            continue
        rows = np.flatnonzero(mask)
        events = int(habits.events[rows].sum())
        top = int(rows[np.argmax(habits.events[rows])])
        irregular = habits.irregularity[top]
        regular = f", intervals varying by {irregular:.0%}" if irregular < _REGULAR else ""
        yield Finding(
            check=check,
            severity=severity,
            title=f"{many(len(rows), 'user has', 'users have')} {what}: {share(events, total)} of the events",
            count=len(rows),
            total=material.events.users,
            unit="users",
            example=f"{material.user(top)}: {habits.events[top]:,} events at {habits.baskets[top]:,} times "
            "on "
            f"{habits.active_days[top]:,} days{regular}",
            meaning=meaning,
            fix=fix,
            measure=partial(without_users, left_out=rows, what=check.replace("_", " ")),
            graded=False,
        )
