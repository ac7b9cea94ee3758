"""Online Retail as a shop: its days, its deliveries to `retrain`, and what is new on a day."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

import polars as pl

from benchmarks.bad_days.planted import Feed
from conf.schema import Adapter, DataConfig
from features.adapters import read_sources
from features.data import schema

LOG: Final = "examples/data/online_retail.parquet"
WEEK: Final = 7 * 86_400
PRICE: Final = "price"
TITLE: Final = "title"
_DAY: Final = pl.col(schema.TIMESTAMP).dt.date()


@dataclass(frozen=True)
class Basket:
    """What a shopper buys on a day."""

    user: str
    time: int
    """Unix seconds of the first purchase."""
    items: tuple[str, ...]


@dataclass(frozen=True)
class Shop:
    """All events of Online Retail, which may be moved by whole weeks into the present."""

    events: pl.DataFrame
    """As in `Feed`, in the order of time."""
    titles: pl.DataFrame
    """`item_id` and `title`."""
    shift_days: int
    """Days by which the events were moved."""

    @classmethod
    def read(cls, path: str, shift_days: int | None = None) -> Shop:
        """Read the raw invoices.

        Args:
            path: of the invoices.
            shift_days: by how much they are moved; None makes the last day of the data one of the last week,
                as servers compare times with the clock.
        """
        sources = read_sources(DataConfig(adapter=Adapter.online_retail, events=path), 0)
        assert sources.events is not None
        raw = sources.events.frame.collect().sort(schema.TIMESTAMP, schema.ORDER)
        last = int(raw[schema.TIMESTAMP].max())  # type: ignore[arg-type]
        days = (int(time.time()) - last) // WEEK * 7 if shift_days is None else shift_days
        moved = pl.from_epoch(pl.col(schema.TIMESTAMP) + days * 86_400).dt.replace_time_zone("UTC")
        events = raw.select(
            schema.USER_ID, schema.ITEM_ID, schema.EVENT, moved.alias(schema.TIMESTAMP),
            pl.col("quantity").cast(pl.Float64), pl.col("value").cast(pl.Float64),
            pl.concat_str("session_id", schema.ITEM_ID, separator="-").alias("event_id"),
        )  # fmt: skip
        return cls(events, sources.items.frame.select(schema.ITEM_ID, TITLE).collect(), days)

    def moved(self, day: date) -> date:
        """Return the day that a day of the data has become."""
        return day + timedelta(days=self.shift_days)

    def original(self, day: date) -> date:
        """Return the day of the data that a day of the replay was."""
        return day - timedelta(days=self.shift_days)

    def days(self, first: date, last: date) -> list[date]:
        """Return the days with purchases, both ends of the data included, as days of the replay."""
        within = self.events.filter(_DAY.is_between(self.moved(first), self.moved(last)))
        return sorted(within[schema.TIMESTAMP].dt.date().unique().to_list())

    def feed(self, day: date) -> Feed:
        """Return the delivery of the night after a day: the log so far, and the items sold so far."""
        until = self.events.filter(day >= _DAY)
        return Feed(self._items(until), until.filter(day > _DAY), until.filter(day == _DAY))

    def _items(self, events: pl.DataFrame) -> pl.DataFrame:
        """Return the items of events with their titles, at the price of their last line."""
        price = (pl.col("value") / pl.col("quantity")).round(2).last().alias(PRICE)
        known = events.group_by(schema.ITEM_ID, maintain_order=True).agg(price)
        return known.join(self.titles, on=schema.ITEM_ID, how="left", maintain_order="left")

    def of_day(self, day: date) -> pl.DataFrame:
        """Return the events of a day."""
        return self.events.filter(day == _DAY)

    def new_items(self, day: date) -> pl.DataFrame:
        """Return the items that are first sold on a day."""
        before = self.events.filter(day > _DAY).select(schema.ITEM_ID).unique()
        return self._items(self.of_day(day).join(before, on=schema.ITEM_ID, how="anti"))

    def baskets(self, day: date) -> list[Basket]:
        """Return what each shopper buys on a day, in the order of their first purchases."""
        grouped = self.of_day(day).group_by(schema.USER_ID, maintain_order=True).agg(
            pl.col(schema.TIMESTAMP).min().dt.epoch("s"), pl.col(schema.ITEM_ID).unique(maintain_order=True)
        )  # fmt: skip
        return [Basket(user, int(first), tuple(items)) for user, first, items in grouped.iter_rows()]
