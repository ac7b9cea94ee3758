"""A made-up shop whose nights are checked: the same hours, kinds and customers every day."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl

from benchmarks.bad_days.planted import Feed
from features.data import schema
from features.ingest.rejects import COLUMNS
from lifecycle.checks.tables import Tables, with_days

FIRST = date(2025, 9, 1)
DAYS = 70
PER_DAY = 120
USERS, ITEMS = 60, 100
TODAY = FIRST + timedelta(days=DAYS - 1)
NIGHT = (datetime.combine(TODAY, datetime.min.time(), UTC) + timedelta(hours=26)).timestamp()
"""2 o'clock after `TODAY`, Unix seconds."""


def events_of(day: date) -> list[tuple[str, str, str, datetime, float, float, str]]:
    """Return 120 events from 8 to 20 o'clock: 10 an hour, a third of them purchases of 3 pieces."""
    start = datetime.combine(day, datetime.min.time(), UTC) + timedelta(hours=8)
    number = (day - FIRST).days
    rows = []
    for n in range(PER_DAY):
        user = (7 * n + 11 * number) % USERS
        item = (13 * n + 17 * number) % ITEMS
        kind = "purchase" if n % 3 == 0 else "view"
        price = 4.0 + item % 10
        rows.append(
            (f"u{user}", f"i{item}", kind, start + timedelta(minutes=6 * n), 3.0, 3 * price, f"{day}-{n}")
        )
    return rows


def feed(day: date = TODAY) -> Feed:
    """Return what the shop delivers in the night after a day."""
    columns = ["user_id", "item_id", "event", "timestamp", "quantity", "value", "event_id"]
    rows = [r for n in range((day - FIRST).days) for r in events_of(FIRST + timedelta(days=n))]
    before = pl.DataFrame(rows, schema=columns, orient="row")
    items = pl.DataFrame(
        {
            "item_id": [f"i{n}" for n in range(ITEMS)],
            "title": [f"Étagère murale nº {n} en chêne" for n in range(ITEMS)],
            "price": [4.0 + n % 10 for n in range(ITEMS)],
            "brand": [f"brand {n % 4}" for n in range(ITEMS)],
        }
    )
    return Feed(items, before, pl.DataFrame(events_of(day), schema=columns, orient="row"))


def tables(night: Feed, **info: Any) -> Tables:
    """Return the dataset of a feed, without the cost of `prepare`."""
    events = night.events.with_columns(pl.col(schema.TIMESTAMP).dt.epoch("s"))
    items = night.items.with_columns(pl.col("title").alias(schema.TEXT))
    kinds = {"price": "number"}
    facts = {
        "content_hash": "0",
        "users": events[schema.USER_ID].n_unique(),
        "rows_read": {"items": items.height, "events": events.height},
        "rejects": {"items": {}, "events": {}},
        "items_without_text": int((night.items["title"] == "").sum()),
        "text_fields": ["title"],
        "text_fallback_fields": [],
        "max_text_chars": 1000,
        "attributes": {c: kinds.get(c, "string") for c in night.items.columns[1:]},
    }
    return Tables(items, with_days(events), pl.DataFrame(schema=COLUMNS), {**facts, **info})
