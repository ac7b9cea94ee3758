"""Suspicious but readable data: reported, not rejected."""

from __future__ import annotations

import time as clock
from datetime import UTC, datetime

import polars as pl

from conf.composition.overrides import override
from features.data import schema
from features.files.readers import FILE, ROW
from features.ingest.engines.interface import Accepted, Written
from features.values.numbers import inexact
from features.values.times import FIRST_PLAUSIBLE

UNORDERED = override("data.columns", {"events.order_number": schema.ORDER})
"""The setting that does not use a column of order numbers as `order`."""
_SHARE = 0.05
"""Share of the events above which one user, or a contradicted order, is reported."""
_LONG = 50_000
"""Events of one user that are implausible and slow down training."""
_FEW_EVENTS = 100
_FEW_USERS = 20
_BURST = 0.2
"""Share of the events in one minute that suggests an import."""
_SAMPLE = 100_000


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _odd_times(events: Accepted, total: int) -> list[str]:
    found = []
    for limit, above, what in (
        (int(clock.time()), True, "in the future"),
        (FIRST_PLAUSIBLE, False, "before 1990"),
    ):
        odd = events.beyond(schema.TIMESTAMP, limit, above)
        if odd is not None:
            found.append(
                f"{odd.events:,} of {total:,} events lie {what}, e.g. {odd.file} row {odd.row}: "
                f"{_moment(int(odd.value))}"
            )
    return found


def _burst(events: Accepted, total: int) -> list[str]:
    """Report the minute that most events share, estimated from a sample."""
    if total < _FEW_EVENTS:
        return []
    minute, count, looked = events.busiest_minute(max(total // _SAMPLE, 1))
    share = 0.0 if minute is None else count / looked
    if minute is None or share <= _BURST:
        return []
    return [
        f"{share:.0%} of the events share the minute {_moment(60 * minute)}: the time of an import? "
        "Evaluation by time says little then; split=leave_one_out needs none"
    ]


def returned(events: Accepted, count: int, total: int) -> list[str]:
    """Report `count` negative quantities, which often mean returns."""
    odd = events.beyond("quantity", 0, above=False) if count else None
    if odd is None:
        return []
    return [
        f"{count:,} of {total:,} events have a quantity below 0, e.g. {odd.file} row {odd.row}: returns? "
        "They count like the others; leave them out of the file, or give them an event of their own, of "
        "weight 0"
    ]


def suspicious_events(events: Accepted, total: int, has_time: bool, written: Written) -> list[str]:
    """Report implausible times and users.

    Args:
        events: accepted events.
        total: their number.
        has_time: whether any has a time.
        written: counts of their users.

    Returns:
        One line per finding, with an example or what to set.
    """
    found = [*_odd_times(events, total), *_burst(events, total)] if has_time else []
    users, most, user = written.users, written.most, written.busiest
    if most > _LONG or (users >= _FEW_USERS and most >= _FEW_EVENTS and most > _SHARE * total):
        slow = ", and every epoch of training goes through all of them" if most > _LONG else ""
        found.append(
            f"user '{user}' owns {most / total:.0%} of the events ({most:,}){slow}: a guest, a till or a "
            f"bot? {override('data.missing', [user])} takes it for no user, "
            f"data.filters.max_user_events={most - 1} leaves it out"
        )
    return found


def suspicious_items(raw: pl.DataFrame) -> list[str]:
    """Report prices that are not single amounts.

    Args:
        raw: raw items with `FILE` and `ROW`.

    Returns:
        One line per finding, with an example.
    """
    if raw.schema.get(schema.PRICE) != pl.String:
        return []
    odd = raw.filter(inexact(raw[schema.PRICE]))
    if odd.is_empty():
        return []
    file, row, price = odd.select(pl.col(FILE).cast(pl.String), ROW, schema.PRICE).row(0)
    return [
        f"{odd.height:,} of {raw.height:,} prices are ranges, least prices or prices by unit, e.g. {file} "
        f"row {row}: '{price}'; the lowest amount is taken"
    ]


def contradicted_order(raised: int, total: int) -> list[str]:
    """Report an `order` that contradicts the timestamps, such as order numbers listed backwards."""
    if total < _FEW_USERS or raised <= _SHARE * total:
        return []
    return [
        f"order contradicts the timestamps of {raised:,} of {total:,} events, which were raised: are these "
        f"numbers of orders? {UNORDERED} leaves the column out"
    ]
