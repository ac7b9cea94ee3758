"""Checks of what has arrived: rejected and repeated rows, earlier days, and times that cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import polars as pl

from features.data import schema
from features.ingest import rejects as why
from lifecycle.checks.check import Check, Finding, judged, not_judged
from lifecycle.checks.night import DAY_SECONDS, Night, day_of, moment
from lifecycle.checks.profile import Profile
from lifecycle.checks.tables import DAY

_TABLES: Final = ("events", "items")
_KEYS: Final = [schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP]
_SHOWN: Final = 3


def arrival_checks(night: Night) -> Iterator[Check]:
    """Yield the checks of rejects, repeats, earlier days, gap and future."""
    for table in _TABLES:
        yield _rejects(night, table)
    if night.previous is None:
        for name in ("repeats", "earlier_days", "events_lost"):
            yield not_judged(name, "no earlier run to compare with")
    else:
        yield _repeats(night, night.previous)
        yield from _earlier(night, night.previous)
    yield _gap(night)
    yield _future(night)


def _rejects(night: Night, table: str) -> Check:
    """Judge the share of rejected rows among the new ones."""
    name = "rejects" if table == "events" else f"rejects.{table}"
    more = _newly_rejected(night, table)
    rejected = sum(more.values())
    total, what = _new_rows(night, table, rejected)
    if rejected and total < night.limits.min_events:
        return not_judged(name, f"{rejected:,} of {total:,} {what} rejected: too few to judge")
    reasons = ", ".join(f"{reason} ({n:,})" for reason, n in list(more.items())[:_SHOWN])
    share = rejected / max(total, 1)
    found = f"{rejected:,} of {total:,} {what} are rejected ({share:.1%})"
    return judged(
        Finding(
            name,
            share,
            night.limits.rejects,
            found + (f": {reasons}" if reasons else ""),
            examples=_examples(night.tables.rejects, table, list(more)),
            fix="rejects.parquet of the dataset has every rejected row; mend the file or the mapping",
        ),
        night.limits,
    )


def _newly_rejected(night: Night, table: str) -> dict[str, int]:
    """Return reason -> rejected rows more than in the last run, most first.

    Events that the last run had and whose item has left the catalogue are rejected from now on, but they are
    not new: `events_lost` judges them.
    """
    counts: dict[str, int] = night.tables.info["rejects"][table]
    previous = night.previous
    if previous is not None:
        counts = {reason: n - previous.rejects[table].get(reason, 0) for reason, n in counts.items()}
        if table == "events" and why.UNKNOWN_ITEM in counts:
            counts[why.UNKNOWN_ITEM] -= _lost(night, previous)[0]
    return {reason: n for reason, n in sorted(counts.items(), key=lambda rn: -rn[1]) if n > 0}


def _new_rows(night: Night, table: str, rejected: int) -> tuple[int, str]:
    """Return the rows of which a share is rejected, and what they are called.

    Events are counted by day, as rows of old days may be gone. Of items all rows count where more are
    rejected than have come.
    """
    rows, previous = int(night.tables.info["rows_read"][table]), night.previous
    if previous is None:
        return rows, f"rows of {table}"
    if table == "events":
        return _grown(previous.days, night.profile.days) + rejected, "new rows of events"
    new = rows - previous.rows_read[table]
    return (new, f"new rows of {table}") if new >= max(rejected, 1) else (rows, f"rows of {table}")


def _examples(rejects: pl.DataFrame, table: str, reasons: list[str]) -> str:
    """Return the last rejected rows of the most frequent reason in words; rows of items have no time."""
    rows = rejects.filter((pl.col(why.TABLE) == table) & (pl.col(why.REASON) == (reasons or [""])[0]))
    return "; ".join(
        f"{row['file']} row {row['row']}: item '{row[schema.ITEM_ID]}'"
        + (f", time '{row[schema.TIMESTAMP]}'" if table == "events" else "")
        for row in rows.tail(_SHOWN).iter_rows(named=True)
    )


def _repeats(night: Night, previous: Profile) -> Check:
    """Judge day by day, as a log that keeps a year loses its oldest day each night."""
    events, now = night.tables.events, night.profile
    repeats, new = _grown(previous.repeats, now.repeats), _grown(previous.days, now.days)
    if new < night.limits.min_events:
        return not_judged("repeats", f"{new:,} more events than in the last run: too few to judge")
    share = repeats / new
    again = events.filter(pl.struct(_KEYS).is_duplicated() & (pl.col(DAY) >= day_of(night.since)))
    shown = [
        f"item '{item}', {kind}, {moment(time)}"
        for item, kind, time in again.tail(2 * _SHOWN)[::2].select(_KEYS[1:]).iter_rows()
    ]
    usual = sum(previous.repeats.values()) / max(previous.events, 1)
    return judged(
        Finding(
            "repeats",
            share,
            night.limits.repeats,
            f"{repeats:,} of {new:,} new events repeat another one in user, item, kind and time "
            f"({share:.1%})",
            normal=f"{usual:.1%}",
            examples="; ".join(shown),
            fix="Was a file delivered twice? data.filters.deduplicate=true keeps one of each",
        ),
        night.limits,
    )


def _grown(before: dict[str, int], now: dict[str, int]) -> int:
    """Return by how much the counts of days have grown, without those that have fallen."""
    return sum(max(count - before.get(day, 0), 0) for day, count in now.items())


def _earlier(night: Night, previous: Profile) -> Iterator[Check]:
    """Judge the days that the last run has seen already: what came to them, and what is gone."""
    limits = night.limits
    counts = night.seen_days
    if not counts or not previous.days:
        yield not_judged("earlier_days", "no event before those of the last run")
        return
    seen = {day: previous.days.get(day, 0) for day in counts}
    grown = {day: (counts[day] - n) / max(n, limits.min_events) for day, n in seen.items()}
    worst = max(grown, key=lambda day: grown[day])
    growth = max(grown[worst], 0.0)
    yield judged(
        Finding(
            "earlier_days",
            growth,
            limits.earlier_days,
            f"{worst} had {previous.days.get(worst, 0):,} events in the last run and has "
            f"{counts.get(worst, 0):,} now",
            normal="days that have been seen do not grow",
            fix="Was a file delivered twice, or are times of new events too early?",
        ),
        limits,
    )
    lost, known = _lost(night, previous)
    share = lost / max(known, 1)
    yield judged(
        Finding(
            "events_lost",
            share,
            limits.events_lost,
            f"{lost:,} of {known:,} events of the last run are gone ({share:.1%})",
            fix="Is a file of the log missing, or have their items left the catalogue (see rejects)?",
        ),
        limits,
    )


def _lost(night: Night, previous: Profile) -> tuple[int, int]:
    """Return how many events of the last run are gone, and of how many.

    The oldest day and those before it do not count: a log that keeps a year loses its oldest day each night.
    """
    counts = night.seen_days
    first = max(min(counts, default=""), min(previous.days, default=""))
    common = {day: n for day, n in previous.days.items() if day > first}
    return sum(max(n - counts.get(day, 0), 0) for day, n in common.items()), sum(common.values())


def _gap(night: Night) -> Check:
    """Judge the time between the last event before and the first new one."""
    if night.new.is_empty() or night.before.is_empty():
        return not_judged("gap", "no new events" if night.new.is_empty() else "no earlier events")
    times = night.before[schema.TIMESTAMP].sort()
    first = int(night.new[schema.TIMESTAMP].min())  # type: ignore[arg-type]
    days = (first - int(times[-1])) / DAY_SECONDS
    longest = float(times.diff().max() or 0) / DAY_SECONDS  # type: ignore[arg-type]
    return judged(
        Finding(
            "gap",
            days,
            max(night.limits.gap_days, longest),
            f"no event between {moment(int(times[-1]))} and {moment(first)} ({days:.1f} days)",
            normal=f"up to {longest:.1f} days",
            fix="Are days of the log missing, or are the times of the new events too late?",
        ),
        night.limits,
    )


def _future(night: Night) -> Check:
    if night.new.is_empty():
        return not_judged("future", "no new events")
    late = night.new.filter(pl.col(schema.TIMESTAMP) > night.now + DAY_SECONDS)
    share = late.height / night.new.height
    example = late.tail(1)
    return judged(
        Finding(
            "future",
            share,
            night.limits.future,
            f"{late.height:,} of {night.new.height:,} new events lie in the future ({share:.1%})",
            examples="".join(
                f"item '{item}', {moment(time)}"
                for item, time in example.select(schema.ITEM_ID, schema.TIMESTAMP).iter_rows()
            ),
            fix="Is a clock wrong, or the unit or the time zone of the times?",
        ),
        night.limits,
    )
