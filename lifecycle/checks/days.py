"""Checks of the volume of days and of hours against the same weekday of the weeks before."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from features.data import schema
from lifecycle.checks.check import Check, Finding, judged, not_judged
from lifecycle.checks.night import Night
from lifecycle.checks.tables import DAY

_FEW: Final = 3
"""Fewest earlier same weekdays that say what is normal."""
_ALWAYS: Final = 0.9
"""Share of the same weekdays in which an hour has events to be one that always has."""
_SURE: Final = 10.0
"""Events that are expected in the missing hours at least: by chance none of them happens in 1 of 22,000 days
(Poisson)."""


def volume_checks(night: Night) -> Iterator[Check]:
    """Yield the checks of volume and hours, each of the worst of the new days."""
    days = _whole_days(night)
    last = days[:1]
    found = [_volumes(night, day) for day in days]
    judged_days = [f for f in found if f is not None]
    for name, sign in (("volume_low", -1), ("volume_high", 1)):
        if not judged_days:
            yield not_judged(name, "no whole new day with earlier days of its weekday")
            continue
        factor = getattr(night.limits, name)
        # The last day is what can be refused: a quieter one before it must not hide it.
        broken = [
            f for f in judged_days if f[0] in last and f[1] and sign * math.log(f[3]) > math.log(factor)
        ]
        day, count, median, ratio = max(broken or judged_days, key=lambda f: sign * f[3])
        shown = ratio if sign > 0 else 1 / max(ratio, 1e-9)
        yield judged(
            Finding(
                name,
                max(shown, 1.0),
                factor,
                f"{day} ({day:%A}) has {count:,} events",
                normal=f"{median:,.0f} on that weekday",
                fix="Is a part of the log missing?" if sign < 0 else "Are events counted several times?",
                is_factor=True,
                # A holiday has no events. What is missing of a day before the last one does not come any
                # more, and later nights would be refused for it until it is forgotten.
                only_warns=sign < 0 and (count == 0 or day not in last),
            ),
            night.limits,
        )
    yield _hours(night, days)


def _whole_days(night: Night) -> list[date]:
    """Return the days that are over and have new events, and days without any between; the latest first."""
    if night.new.is_empty():
        return []
    seen = datetime.fromtimestamp(night.since, UTC).date() + timedelta(days=1)
    first = min(date.fromisoformat(str(night.new[DAY].min())), seen)
    yesterday = datetime.fromtimestamp(night.now, UTC).date() - timedelta(days=1)
    last = min(datetime.fromtimestamp(night.profile.newest, UTC).date(), yesterday)
    days = min((last - first).days + 1, 7 * night.limits.weeks)
    return [last - timedelta(days=n) for n in range(days)]


def _earlier_weekdays(night: Night, day: date) -> list[str]:
    """Return the days of the same weekday in the weeks before the new events, oldest first."""
    first = night.recent[DAY].min()
    days = [day - timedelta(weeks=n) for n in range(night.limits.weeks, 0, -1)]
    return [f"{d}" for d in days if f"{d}" >= str(first)]


def _volumes(night: Night, day: date) -> tuple[date, int, float, float] | None:
    """Return a day, its events, the median of its weekday, and the factor between; None if unknown."""
    counts = night.profile.days
    earlier = [counts.get(d, 0) for d in _earlier_weekdays(night, day)]
    median = float(np.median([n for n in earlier if n] or [0]))
    open_days = sum(n > 0 for n in earlier)
    if open_days < _FEW or 2 * open_days < len(earlier) or median < night.limits.min_events:
        return None
    count = counts.get(f"{day}", 0)
    return day, count, median, count / median


def _hours(night: Night, days: list[date]) -> Check:
    """Judge the hours that always have events and have none now, by their share of a usual day."""
    hour = pl.from_epoch(schema.TIMESTAMP).dt.hour().alias("hour")
    table = night.tables.events.group_by(DAY, hour).len()
    worst: tuple[float, date, list[int]] | None = None
    for day in days:
        earlier = _earlier_weekdays(night, day)
        counts = np.zeros((len(earlier), 24))
        places = {d: place for place, d in enumerate(earlier)}
        for d, h, n in table.filter(pl.col(DAY).is_in(earlier)).iter_rows():
            counts[places[d], h] = n
        counts = counts[counts.sum(axis=1) > 0]
        today = np.zeros(24)
        for h, n in table.filter(pl.col(DAY) == f"{day}").select("hour", "len").iter_rows():
            today[h] = n
        if len(counts) < _FEW or not today.any():
            continue
        usual = (counts / counts.sum(axis=1, keepdims=True)).mean(axis=0)
        missing = _longest(((counts > 0).mean(axis=0) >= _ALWAYS) & (today == 0))
        share = float(usual[missing].sum())
        # What the other hours have says how many events the missing ones would have had.
        expected = today.sum() * share / max(1 - share, 1e-9)
        if expected < _SURE:
            share = 0.0
        if worst is not None and worst[1] in days[:1] and worst[0] > night.limits.hours:
            break  # the last day is what can be refused: an emptier one before it must not hide it
        if worst is None or share > worst[0]:
            worst = share, day, [int(h) for h in np.flatnonzero(missing)] if share else []
    if worst is None:
        return not_judged("hours", "no whole new day with earlier days of its weekday")
    share, day, empty = worst
    return judged(
        Finding(
            "hours",
            share,
            night.limits.hours,
            f"on {day} no event in hours (UTC) {_ranges(empty)}, which usually have {share:.0%} of a day's"
            if empty
            else f"on {day} no hour is empty that always has events",
            fix="Is the export of that day complete?",
            only_warns=day not in days[:1],
        ),
        night.limits,
    )


def _longest(missing: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Keep the longest run of hours: a file that breaks off leaves one, a quiet day several short ones."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], missing, [False]])))
    runs = edges.reshape(-1, 2)  # [runs, begin and end]
    kept = np.zeros_like(missing)
    if len(runs):
        begin, end = runs[np.argmax(runs[:, 1] - runs[:, 0])]
        kept[begin:end] = True
    return kept


def _ranges(hours: list[int]) -> str:
    """Return adjacent hours in words: `12 to 17`."""
    return f"{hours[0]} to {hours[-1]}" if len(hours) > 1 else f"{hours[0]}"
