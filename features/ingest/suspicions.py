"""Suspicious but readable data: reported, not rejected."""

from __future__ import annotations

import time as clock
from datetime import UTC, datetime

import polars as pl

from conf.composition.overrides import override
from features.data import schema
from features.files.readers import FILE, ROW
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


def _odd_times(events: pl.LazyFrame, total: int) -> list[str]:
    time = pl.col(schema.TIMESTAMP)
    found = []
    for test, what in (
        (time > int(clock.time()), "in the future"),
        (time < FIRST_PLAUSIBLE, "before 1990"),
    ):
        odd = events.filter(test)
        count = int(odd.select(pl.len()).collect(engine="streaming").item())
        if count:
            file, row, at = odd.select(pl.col(FILE).cast(pl.String), ROW, time).head(1).collect().row(0)
            found.append(f"{count:,} of {total:,} events lie {what}, e.g. {file} row {row}: {_moment(at)}")
    return found


def _burst(events: pl.LazyFrame, total: int) -> list[str]:
    """Report the minute that most events share, estimated from a sample."""
    step = max(total // _SAMPLE, 1)
    minutes = events.select(pl.col(schema.TIMESTAMP).gather_every(step) // 60).collect(engine="streaming")
    counts = minutes.group_by(schema.TIMESTAMP).len().sort("len", descending=True)
    minute, count = counts.row(0)
    share = count / max(minutes.height, 1)
    if minute is None or total < _FEW_EVENTS or share <= _BURST:
        return []
    return [
        f"{share:.0%} of the events share the minute {_moment(60 * minute)}: the time of an import? "
        "Evaluation by time says little then; split=leave_one_out needs none"
    ]


def returned(events: pl.LazyFrame, count: int, total: int) -> list[str]:
    """Report `count` negative quantities, which often mean returns."""
    if not count:
        return []
    odd = events.filter(pl.col("quantity") < 0)
    file, row = odd.select(pl.col(FILE).cast(pl.String), ROW).head(1).collect().row(0)
    return [
        f"{count:,} of {total:,} events have a quantity below 0, e.g. {file} row {row}: returns? They count "
        "like the others; leave them out of the file, or give them an event of their own, of weight 0"
    ]


def suspicious_events(events: pl.LazyFrame, total: int, has_time: bool) -> list[str]:
    """Report implausible times and users.

    Args:
        events: accepted rows with `FILE` and `ROW`.
        total: their number.
        has_time: whether any has a time.

    Returns:
        One line per finding, with an example or what to set.
    """
    found = [*_odd_times(events, total), *_burst(events, total)] if has_time else []
    per_user = events.group_by(schema.USER_ID).len().sort("len", descending=True)
    users, most, user = per_user.select(
        pl.len().alias("users"), pl.col("len").first(), pl.col(schema.USER_ID).first()
    ).collect(engine="streaming").row(0)  # fmt: skip
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
