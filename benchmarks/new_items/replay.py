"""Replay a shop's events through a running server, with requests at the moments of purchases."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import numpy as np
import polars as pl

from features.data import schema
from shelfwise_client import Client, Event, Item, RecommendQuery, Reject

DAY: Final = 86_400
DEPTH: Final = 20
NEW_DAYS: Final = 31
"""An item is new for so many days after it first sold."""
SLOT: Final = 10
"""Rank of the popularity slot, which holds the new item that has sold most."""
SLOT_ARM: Final = "popularity slot"
_BATCH: Final = 500
_WAIT: Final = 60.0


@dataclass(frozen=True)
class Interaction:
    """One event of the replay."""

    user: str
    item: str
    kind: str
    time: int


@dataclass(frozen=True)
class Basket:
    """Items that a user chose on a day; the list is requested at the first event."""

    user: str
    time: int
    items: frozenset[str]


class Served(Protocol):
    """A shop that takes items and events and returns lists."""

    def upsert(self, item_ids: Sequence[str]) -> None:
        """Upsert items that are first sold."""

    def record(self, first: int, interactions: Sequence[Interaction]) -> None:
        """Record events; `first` is the number of earlier ones."""

    def recommend(self, user: str, moment: int, novelty: float | None) -> list[str]:
        """Return the first `DEPTH` items for a user at a moment; None takes the served novelty."""


class Server:
    """A running server."""

    def __init__(self, client: Client, new_items: pl.DataFrame) -> None:
        """Take the connection and the attributes of the new items."""
        self._client = client
        known = set(client.status().attributes) - {schema.ITEM_ID}
        columns = [name for name in new_items.columns if name in known]
        ids = new_items[schema.ITEM_ID].to_list()
        rows = new_items.select(columns).iter_rows(named=True)
        self._items = {item_id: Item(item_id, _plain(row)) for item_id, row in zip(ids, rows, strict=True)}
        self.rejects: Counter[str] = Counter()
        self.messages: dict[str, str] = {}

    def upsert(self, item_ids: Sequence[str]) -> None:
        """Upsert items that are first sold."""
        for part in _parts(item_ids):
            outcome = self._client.upsert_items([self._items[item_id] for item_id in part], timeout=_WAIT)
            self._note("item", outcome.rejects)

    def record(self, first: int, interactions: Sequence[Interaction]) -> None:
        """Record events under ids by their position in the replay."""
        events = [
            Event(
                row.user,
                row.item,
                row.kind,
                _moment(row.time),
                event_id=f"replay-{number}",
            )
            for number, row in enumerate(interactions, start=first)
        ]
        for part in _parts(events):
            outcome = self._client.record_events(part, timeout=_WAIT)
            self._note("event", outcome.rejects)

    def _note(self, what: str, rejects: Sequence[Reject]) -> None:
        """Count rejects by reason, with the first message of each."""
        for reject in rejects:
            self.rejects[f"{what}: {reject.reason}"] += 1
            self.messages.setdefault(f"{what}: {reject.reason}", reject.message)

    def recommend(self, user: str, moment: int, novelty: float | None) -> list[str]:
        """Return a user's list as of a moment."""
        query = RecommendQuery(
            user_id=user,
            page_size=DEPTH,
            fields=("item_id",),
            request_time=_moment(moment),
            novelty=novelty,
        )
        return [item.item_id for item in self._client.recommend(query, timeout=_WAIT).items]


@dataclass(frozen=True)
class Played:
    """The results of a replay; lists are parallel to baskets."""

    baskets: list[Basket]
    lists: dict[str, list[list[str]]]
    """Arm -> its lists, best first."""
    born: dict[str, int]
    """New item -> Unix seconds of its first sale."""
    end: int
    """Unix seconds of the last event."""
    rejects: dict[str, str] = field(default_factory=dict)
    """Reject reason -> number and first message."""


def read_interactions(path: str) -> list[Interaction]:
    """Read the replayed events, in time order."""
    frame = pl.read_parquet(path)
    columns = (schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP)
    return [Interaction(*row) for row in frame.select(columns).iter_rows()]


def baskets_of(
    interactions: Iterable[Interaction], kinds: Iterable[str], count: int, seed: int = 0
) -> list[Basket]:
    """Return a sample of users' baskets, in time order.

    Args:
        interactions: in time order.
        kinds: event kinds of a basket.
        count: most baskets, sampled without replacement; 0 takes all.
        seed: of the sample.
    """
    chosen = set(kinds)
    found: dict[tuple[str, int], tuple[int, set[str]]] = {}
    for row in interactions:
        if row.kind in chosen:
            found.setdefault((row.user, row.time // DAY), (row.time, set()))[1].add(row.item)
    baskets = [Basket(user, time, frozenset(items)) for (user, _), (time, items) in found.items()]
    if 0 < count < len(baskets):
        drawn = np.random.default_rng(seed).choice(len(baskets), count, replace=False)
        baskets = [baskets[index] for index in drawn]
    return sorted(baskets, key=lambda basket: (basket.time, basket.user))


def with_slot(items: Sequence[str], sold: Mapping[str, int], place: int = SLOT) -> list[str]:
    """Return a list with one rank given to the best-selling new item that is not in it.

    Args:
        items: best first.
        sold: new item -> number of sales; ties go to the earlier one.
        place: from 1; a shorter list gets the item at its end.
    """
    best = max((item for item in sold if item not in set(items)), key=lambda item: sold[item], default=None)
    if best is None:
        return list(items)
    return [*items[: place - 1], best, *items[place - 1 :]][:DEPTH]


def replay(
    interactions: Sequence[Interaction],
    baskets: Sequence[Basket],
    new: Iterable[str],
    shop: Served,
    arms: Mapping[str, float | None],
    step: Callable[[int, int], None] = lambda done, of: None,
) -> Played:
    """Replay all events in a shop, and request each list with several settings.

    At each basket all events before its moment have been recorded, and none at that moment; an item is
    upserted just before its first event is recorded.

    Args:
        interactions: all events, in time order.
        baskets: the requests, in time order.
        new: items that are not in the initial catalogue.
        shop: the server.
        arms: name -> novelty of its lists. The last one with a popularity slot is a further arm.
        step: called with the number of lists made and the total.
    """
    unknown = set(new)
    born: dict[str, int] = {}
    sold: Counter[str] = Counter()
    lists: dict[str, list[list[str]]] = {arm: [] for arm in (*arms, SLOT_ARM)}
    times = np.array([row.time for row in interactions], dtype=np.int64)
    done = 0

    def happen(stop: int) -> None:
        part = interactions[done:stop]
        fresh = dict.fromkeys(row.item for row in part if row.item in unknown and row.item not in born)
        for row in part:
            if row.item in unknown:
                born.setdefault(row.item, row.time)
                sold[row.item] += 1
        if fresh:
            shop.upsert(list(fresh))
        if part:
            shop.record(done, part)

    for number, basket in enumerate(baskets, start=1):
        stop = int(np.searchsorted(times, basket.time, side="left"))
        happen(stop)
        done = stop
        for arm, novelty in arms.items():
            lists[arm].append(shop.recommend(basket.user, basket.time, novelty)[:DEPTH])
        still = {item: n for item, n in sold.items() if basket.time - born[item] < NEW_DAYS * DAY}
        lists[SLOT_ARM].append(with_slot(lists[list(arms)[-1]][-1], still))
        step(number, len(baskets))
    happen(len(interactions))
    return Played(list(baskets), lists, born, int(times[-1]))


def _parts(rows: Sequence[Any]) -> Iterable[Sequence[Any]]:
    return (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that are not missing, times as ISO text."""
    return {
        name: value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in row.items()
        if value is not None
    }
