"""The servers of the replay: lists in the morning, and the day's products and purchases."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from benchmarks.bad_days.shop import PRICE, TITLE, Basket
from benchmarks.serving.processes import running
from benchmarks.storefront.patient import PatientClient
from features.data import schema
from shelfwise_client import Client, Event, Item, RecommendQuery

DEPTH: Final = 10
_BATCH: Final = 500
_WAIT: Final = 60.0
_COUNTED: Final = 3.0
"""Seconds after which recorded events are counted towards popularity and neighbours: several polls."""


@contextmanager
def served(store: Path, log: Path) -> Iterator[Client]:
    """Start `shelfwise serve` on a store; yield a client of it."""
    command = [
        sys.executable, "-m", "shelfwise", "serve", f"artifacts={store.resolve()}", "port=0", "admin=true",
        "metrics.port=0",
    ]  # fmt: skip
    with running(command, log) as server, PatientClient(server.address) as client:
        yield client


def lists_of(client: Client, baskets: Sequence[Basket]) -> list[dict[str, Any]]:
    """Return the list of every shopper as of the first purchase, with what attributes events to it."""
    found = []
    for basket in baskets:
        query = RecommendQuery(
            user_id=basket.user, page_size=DEPTH, fields=("item_id",), request_time=_moment(basket.time)
        )
        result = client.recommend(query, timeout=_WAIT)
        found.append({
            "items": [item.item_id for item in result.items],
            "token": result.attribution_token,
            "version": result.model_version,
            "degradation": result.degradation,
        })  # fmt: skip
    return found


def upsert(client: Client, items: pl.DataFrame) -> None:
    """Add the products that the shop sells from this day on.

    Raises:
        RuntimeError: one was refused.
    """
    rows = [
        Item(row[schema.ITEM_ID], {TITLE: row[TITLE] or "", PRICE: row[PRICE]})
        for row in items.iter_rows(named=True)
    ]
    for part in _parts(rows):
        rejects = client.upsert_items(part, timeout=_WAIT).rejects
        if rejects:
            raise RuntimeError(f"UpsertItems refused {len(rejects)} items: {rejects[0].message}")


def record(client: Client, events: pl.DataFrame, lists: dict[str, dict[str, Any]]) -> None:
    """Record the purchases of a day; those of listed items are attributed to the list.

    Args:
        client: of the server.
        events: of the day.
        lists: shopper -> the list of this morning.

    Raises:
        RuntimeError: an event was refused.
    """
    rows = []
    for row in events.iter_rows(named=True):
        shown = lists.get(row[schema.USER_ID], {"items": [], "token": ""})
        item = row[schema.ITEM_ID]
        place = shown["items"].index(item) + 1 if item in shown["items"] else 0
        rows.append(
            Event(
                row[schema.USER_ID], item, row[schema.EVENT], row[schema.TIMESTAMP], row["event_id"],
                attribution_token=shown["token"] if place else "", list_position=place,
            )
        )  # fmt: skip
    for part in _parts(rows):
        rejects = client.record_events(part, timeout=_WAIT).rejects
        if rejects:
            raise RuntimeError(f"RecordEvents refused {len(rejects)} events: {rejects[0].message}")
    time.sleep(_COUNTED)


def wait_for(client: Client, version: str, seconds: float = 180.0) -> float:
    """Wait until a server serves a version; return the seconds.

    Raises:
        RuntimeError: it does not take it.
    """
    begun = time.monotonic()
    while client.status(timeout=_WAIT).model_version != version:
        if time.monotonic() - begun > seconds:
            raise RuntimeError(f"the server has not taken {version} within {seconds:.0f} s")
        time.sleep(0.5)
    return time.monotonic() - begun


def _parts(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
