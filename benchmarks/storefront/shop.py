"""Shared by the trials of a storefront: the shop under test, its new items, and a row of the table."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import grpc
import polars as pl

from benchmarks.storefront.patient import PatientClient
from features.data import schema
from ranking.bundle.bundle import HISTORIES
from ranking.bundle.catalogue_file import CATALOG
from ranking.bundle.store import CURRENT, VERSIONS, current_version
from shelfwise_client import Client, Event, Item
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc

TYPE: Final = "product_type"
CATEGORY: Final = "product_category"
KOMBUCHA: Final = "new-kombucha"
OAT_DRINK: Final = "new-oat-drink"
_WAIT: Final = 60.0


@dataclass(frozen=True)
class Row:
    """The description and the result of one trial."""

    key: str
    """Stable name, by which tables of two versions are joined."""
    tried: str
    seen: str
    numbers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NewItem:
    """A grocery item that is added to the catalogue."""

    item_id: str
    words: str
    category: str
    department: str
    size: str
    price: float

    def item(self, known: Iterable[str]) -> Item:
        """Return the item to upsert, with the attributes that the model has."""
        values = {
            TYPE: self.words, "title": self.words, CATEGORY: self.category, "department": self.department,
            "brand": "National", "package_size": self.size, schema.PRICE: self.price,
        }  # fmt: skip
        return Item(self.item_id, {name: value for name, value in values.items() if name in set(known)})


NEW_ITEMS: Final = (
    NewItem("new-milk", "Organic whole milk", "Fluid milk products", "Grocery", "1 gal", 4.49),
    NewItem("new-bananas", "Organic bananas fair trade", "Tropical fruit", "Produce", "1 lb", 0.79),
    NewItem(OAT_DRINK, "Oat drink barista", "Non-dairy beverages", "Nutrition", "32 oz", 3.29),
    NewItem("new-chocolate", "Dark chocolate bar sea salt", "Candy - checklane", "Drug gm", "3.5 oz", 2.49),
    NewItem("new-nappies", "Baby nappies newborn", "Diapers & disposables", "Drug gm", "40 ct", 9.99),
    NewItem(KOMBUCHA, "Kombucha ginger lemon", "Refrgratd juices/drnks", "Grocery", "16 oz", 2.99),
    NewItem("new-yogurt", "Greek yogurt vanilla", "Yogurt", "Grocery", "5.3 oz", 1.19),
    NewItem("new-pizza", "Sourdough pizza margherita", "Frozen pizza", "Grocery", "15 oz", 5.99),
    NewItem("new-coffee", "Ground coffee dark roast", "Coffee", "Grocery", "12 oz", 6.49),
    NewItem("new-eggs", "Eggs - free range large", "Eggs", "Grocery", "12 ct", 3.99),
)
NEW_IDS: Final = frozenset(item.item_id for item in NEW_ITEMS)


@dataclass(frozen=True)
class Shop:
    """A running server, and data of its bundle."""

    client: Client
    stub: Any
    """The generated stub, for calls that not every version has."""
    frame: pl.DataFrame
    """The catalogue at the start."""
    users: tuple[str, ...]
    """Ids of all users with a history."""
    kind: str
    """The strongest event kind: a purchase, usually."""
    attributes: frozenset[str]
    bought: datetime
    """When the trial's purchases happen: an hour after the model's last event."""
    now: datetime
    """When lists are requested: another hour later."""
    titles: dict[str, str] = field(default_factory=dict)
    """Item id -> title of the items recommended so far."""

    def some_users(self, count: int) -> tuple[str, ...]:
        """Return `count` users, evenly spread."""
        step = max(len(self.users) // count, 1)
        return self.users[::step][:count]

    def filter_attribute(self) -> str:
        """Return the attribute that filters refer to an item by."""
        return TYPE if TYPE in self.attributes else "title"

    def types(self, least: int) -> list[str]:
        """Return the product types of at least so many items, in order; none where no item has a type."""
        if TYPE not in self.frame.columns:
            return []
        sizes = self.frame.drop_nulls(TYPE).group_by(TYPE).len().filter(pl.col("len") >= least)
        return sorted(sizes[TYPE].to_list())

    def type_of(self) -> dict[str, str]:
        """Return item id -> product type."""
        return dict(self.frame.select(schema.ITEM_ID, TYPE).drop_nulls().iter_rows())

    def text_of(self) -> dict[str, str]:
        """Return item id -> text."""
        texts = dict(self.frame.select(schema.ITEM_ID, schema.TEXT).iter_rows())
        return texts | {item.item_id: item.words for item in NEW_ITEMS}

    def record(self, events: Sequence[Event]) -> None:
        """Record events in batches."""
        for start in range(0, len(events), 500):
            self.client.record_events(events[start : start + 500], timeout=_WAIT)


@contextmanager
def opened(address: str, artifacts: Path) -> Iterator[Shop]:
    """Connect to a server that serves the current version of a store."""
    version = artifacts / VERSIONS / current_version(artifacts)
    histories = pl.read_parquet(artifacts / HISTORIES, columns=[schema.USER_ID])
    with PatientClient(address, timeout=_WAIT) as client, grpc.insecure_channel(address) as channel:
        status = client.status()
        known = status.event_kinds
        bought = max(status.model_data_time, datetime(1971, 1, 1, tzinfo=UTC)) + timedelta(hours=1)
        yield Shop(
            client=client,
            stub=pb_grpc.RecommendationServiceStub(channel),  # type: ignore[no-untyped-call]
            frame=pl.read_parquet(version / CATALOG),
            users=tuple(sorted(histories[schema.USER_ID].unique().to_list())),
            kind=next((kind for kind in schema.USUAL_KINDS if kind in known), known[0]),
            attributes=frozenset(status.attributes),
            bought=bought,
            now=bought + timedelta(hours=1),
        )


def copy_of(artifacts: Path, folder: Path) -> Path:
    """Copy a store's current version, so that trials do not change the store; return the copy."""
    shutil.rmtree(folder, ignore_errors=True)
    version = current_version(artifacts)
    shutil.copytree(artifacts / VERSIONS / version, folder / VERSIONS / version)
    for name in (CURRENT, HISTORIES):
        shutil.copy2(artifacts / name, folder / name)
    return folder


def place_of(item_id: str, listed: Sequence[str]) -> int | None:
    """Return the rank of an item from 1, or None."""
    return listed.index(item_id) + 1 if item_id in listed else None


def shown_places(places: Iterable[int | None]) -> str:
    """Return ranks as text, a dash for an item that was not found."""
    return ", ".join("-" if place is None else str(place) for place in places)


def share(part: float, whole: float) -> float:
    """Return part / whole; 0 for an empty whole."""
    return part / whole if whole else 0.0


Trial = Callable[[Shop], list[Row]]
