"""What goes wrong with a feed: functions from a night's good feed to a bad one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

import polars as pl

from features.data import schema

TITLE: Final = "title"
VALUE, QUANTITY, EVENT_ID = "value", "quantity", "event_id"
_TIME = pl.col(schema.TIMESTAMP)
_NOON: Final = 12
_BOT: Final = "crawler"
_SEED: Final = 7


@dataclass(frozen=True)
class Feed:
    """What a shop delivers in a night: its catalogue, and the events of the log up to now.

    A day function uses the columns below; of columns that a feed lacks, nothing is changed.
    """

    items: pl.DataFrame
    """`item_id`, `title`, `price` (number)."""
    before: pl.DataFrame
    """Events of the days before: `user_id`, `item_id`, `event`, `timestamp` (datetime, UTC), `quantity`,
    `value`, `event_id`; in the order of time."""
    today: pl.DataFrame
    """Events of the last day, with the same columns."""

    @property
    def events(self) -> pl.DataFrame:
        """The whole log."""
        return pl.concat([self.before, self.today], how="vertical_relaxed")


@dataclass(frozen=True)
class BadDay:
    """One thing that goes wrong."""

    name: str
    words: str
    """What happened, for a table."""
    change: Callable[[Feed], Feed]
    checks: tuple[str, ...]
    """Checks of `lifecycle.checks` of which one has to refuse the day: those that name the cause."""


def _today(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Feed], Feed]:
    return lambda feed: replace(feed, today=change(feed.today))


def _items(change: Callable[[pl.DataFrame], pl.DataFrame]) -> Callable[[Feed], Feed]:
    return lambda feed: replace(feed, items=change(feed.items))


def _without_ids(events: pl.DataFrame) -> pl.DataFrame:
    ids = [c for c in (EVENT_ID,) if c in events.columns]
    return events.with_columns(pl.lit(None, pl.String).alias(c) for c in ids)


def _yesterday(feed: Feed) -> pl.DataFrame:
    """Return the last day with events before today."""
    day = _TIME.dt.date()
    return feed.before.filter(day == day.max())


def _yesterday_again(feed: Feed) -> Feed:
    return replace(feed, today=pl.concat([_without_ids(_yesterday(feed)), feed.today]))


def _numbers_swapped(events: pl.DataFrame) -> pl.DataFrame:
    if not {VALUE, QUANTITY} <= set(events.columns):
        return events
    return events.with_columns(pl.col(VALUE).alias(QUANTITY), pl.col(QUANTITY).alias(VALUE))


def _misread(text: str) -> str:
    """Return a text whose bytes are read in a wrong encoding: UTF-8 as cp1252, or plain ASCII as UTF-16."""
    raw = text.encode()
    if not text.isascii():
        return raw.decode("cp1252", errors="replace")
    return raw.decode("utf-16-le", errors="replace")


def _as_seconds(events: pl.DataFrame) -> pl.DataFrame:
    """Read milliseconds as seconds."""
    return events.with_columns(pl.from_epoch(_TIME.dt.epoch("ms"), "s").dt.replace_time_zone("UTC"))


def _mojibake(items: pl.DataFrame) -> pl.DataFrame:
    return items.with_columns(pl.col(TITLE).map_elements(_misread, return_dtype=pl.String))


def _all_of(name: str, value: str) -> Callable[[Feed], Feed]:
    return _today(lambda events: events.with_columns(pl.lit(value).alias(name)))


def _shifted(days: int) -> Callable[[Feed], Feed]:
    return _today(lambda events: events.with_columns(_TIME + timedelta(days=days)))


def _respelled(name: str) -> Callable[[Feed], Feed]:
    """Write ids as a spreadsheet does that takes them for numbers."""
    return _today(lambda events: events.with_columns(pl.col(name) + ".0"))


_LIST: Final = (
    BadDay(
        "duplicated_feed",
        "the day's events twice, event ids included",
        _today(lambda events: pl.concat([events, events])),
        ("repeats",),
    ),
    BadDay(
        "duplicated_without_ids",
        "the day's events twice, without event ids",
        _today(lambda events: _without_ids(pl.concat([events, events]))),
        ("repeats",),
    ),
    BadDay("yesterday_again", "yesterday's events once more", _yesterday_again, ("repeats", "earlier_days")),
    BadDay(
        "half_the_catalogue",
        "half of the items are gone",
        _items(lambda items: items.sample(fraction=0.5, seed=_SEED)),
        ("items_lost",),
    ),
    BadDay(
        "empty_texts",
        "all texts are empty",
        _items(lambda items: items.with_columns(pl.lit("").alias(TITLE))),
        ("texts_empty",),
    ),
    BadDay(
        "prices_x100",
        "prices in pence instead of pounds",
        _items(lambda items: items.with_columns(pl.col(schema.PRICE) * 100)),
        ("price_unit",),
    ),
    BadDay(
        "mojibake",
        "texts read in a wrong encoding",
        _items(_mojibake),
        ("texts_encoding",),
    ),
    BadDay(
        "half_the_day",
        "the events after noon are missing",
        _today(lambda events: events.filter(_TIME.dt.hour() < _NOON)),
        ("hours",),
    ),
    BadDay("a_year_ahead", "times a year too late", _shifted(365), ("future", "gap")),
    BadDay("a_year_back", "times a year too early", _shifted(-365), ("earlier_days",)),
    BadDay(
        "milliseconds",
        "times in milliseconds, read as seconds",
        _today(_as_seconds),
        ("rejects",),
    ),
    BadDay("one_user", "all events are of one user", _all_of(schema.USER_ID, _BOT), ("top_user",)),
    BadDay("relabelled", "purchases are called views", _all_of(schema.EVENT, "view"), ("kinds",)),
    BadDay("swapped_columns", "quantity and value are swapped", _today(_numbers_swapped), ("unit_value",)),
    BadDay("user_ids_respelled", "user ids end in .0", _respelled(schema.USER_ID), ("new_users",)),
    BadDay("item_ids_respelled", "item ids end in .0", _respelled(schema.ITEM_ID), ("rejects",)),
)  # fmt: skip
BAD_DAYS: Final[dict[str, BadDay]] = {day.name: day for day in _LIST}
"""Every bad day by its name."""
