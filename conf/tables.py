"""Settings of the raw tables: files, parsing and cleaning."""

from __future__ import annotations

import codecs
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from conf.checks import at_least, require


class Adapter(Enum):
    """How raw files are read: the user's own tables, a platform's exports, or a known data set."""

    files = "files"
    shopify = "shopify"
    woocommerce = "woocommerce"
    magento = "magento"
    merchant_feed = "merchant_feed"
    ga4 = "ga4"
    completejourney = "completejourney"
    online_retail = "online_retail"
    amazon_reviews = "amazon_reviews"
    movielens = "movielens"
    recbole = "recbole"
    retailrocket = "retailrocket"
    otto = "otto"
    mind = "mind"
    yoochoose = "yoochoose"


class Decimal(Enum):
    """The decimal sign of numbers in text."""

    auto = "auto"
    """Inferred from the values of each column."""
    dot = "dot"
    comma = "comma"


class Duplicates(Enum):
    """Which of several rows of an item is kept."""

    first = "first"
    last = "last"
    newest = "newest"
    """By `updated_at`, else by `created_at`."""


class Engine(Enum):
    """What filters, counts and sorts events in `prepare`; the result is the same."""

    polars = "polars"
    """This machine."""
    spark = "spark"
    """Spark's workers, on this machine or a cluster."""


@dataclass(frozen=True)
class SparkConfig:
    """Spark, where `engine=spark`."""

    master: str | None = None
    """Spark's master URL, e.g. `local[4]` or `yarn`; null is what `spark-submit` says, and every core of this
    machine without it."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Spark's own properties, e.g. `{spark.driver.memory: 4g}`."""

    def __post_init__(self) -> None:
        """Flatten names with dots that were given one by one."""
        object.__setattr__(self, "settings", _leaves(self.settings))


def _leaves(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return `a.b.c` -> value of mappings in mappings."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        found |= _leaves(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
    return found


@dataclass(frozen=True)
class FilterConfig:
    """Optional cleaning of events, applied in this order: duplicates, bots, k-core."""

    deduplicate: bool = False
    """Keep one of several events equal in user, item, kind and time."""
    max_user_events: int = 0
    """Drop users with more events than this (bots, tills); 0 keeps everyone."""
    kcore: int = 0
    """Repeat until every user and every item has this many events; 0 is off."""

    def __post_init__(self) -> None:
        """Check ranges."""
        require(self.max_user_events >= 0, "data.filters.max_user_events must be 0 or more")
        require(self.kcore >= 0, "data.filters.kcore must be 0 or more")


def _flat(columns: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in columns.items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, Mapping) else {key: value}
    return flat


def _is_encoding(name: str) -> bool:
    try:
        return bool(codecs.lookup(name))
    except LookupError:
        return False


@dataclass(frozen=True)
class DataConfig:
    """Where the raw tables are and how their columns map onto the data contract."""

    adapter: Adapter = Adapter.files
    """Which reader the files get: the shop's own tables, a platform's export, or a known data set.
    `data=NAME` sets it."""
    items: Any = None
    """Path, list of paths or glob of the item table."""
    events: Any = None
    """Path, list of paths or glob of the event table; null for a catalogue without history."""
    recorded: Any = None
    """Path, list of paths or glob of events that servers recorded, as `shelfwise export events` writes them;
    they are added to `events`, whatever the format of those. One that `events` have, too, counts once: of the
    same user, with the same event_id, or with the same item and kind in the same second."""
    encoding: str | None = None
    """Encoding of text tables, e.g. `cp1252`; null is UTF-8, or what a file's byte order mark says."""
    without_header: list[str] = field(default_factory=list)
    """`items`, `events` or both: text tables without a header; columns are `column_1`, `column_2`, ..."""
    columns: dict[str, Any] = field(default_factory=dict)
    """Contract name -> name in the files, e.g. `{user_id: customer, item_id: sku}`, or a list of names of
    which each row takes the first that has a value."""
    properties: dict[str, str] = field(default_factory=dict)
    """Items in long form, a row per item and property: `{name: COLUMN, value: COLUMN}` and, where the newest
    value counts, `time: COLUMN`."""
    parent: str | None = None
    """Column of the items that names their product: what a variant lacks it takes from the product's row."""
    duplicates: Duplicates | None = None
    """Which of several rows of an item is kept; null keeps the first, and stops if more than 5 % differ."""
    decimal: Decimal = Decimal.auto
    """Decimal sign of ambiguous numbers such as `1.299` in text tables; `auto` infers it for each column."""
    timestamp_format: str | None = None
    """Format of times in text, e.g. `%d.%m.%Y %H:%M` (chrono's syntax); null infers usual formats."""
    file_order: bool = False
    """Whether the events of the files are in the order in which they happened; `order` is then the row's
    number over all files. For logs without times, which need split=leave_one_out."""
    missing: list[str] | None = None
    """Placeholders for missing values, in any case; null takes the usual ones (`null`, `(not set)`, ...)."""
    match_ids: list[str] = field(default_factory=list)
    """`case`, `zeros` or both: item ids of events that differ from one of the items' in case or in leading
    zeros alone are taken for it."""
    exclude: dict[str, Any] = field(default_factory=dict)
    """Column of the events as the files name it (`items.COLUMN`: of the items) -> value or values of the rows
    that are left out, in any case, e.g. `{status: [cancelled, refunded]}`; `"*"` is any value."""
    types: dict[str, str] = field(default_factory=dict)
    """Column of the items -> `string`, `number`, `bool`, `list` or `time`, where values do not tell.
    `events.item_id: list` makes an event of every id in a cell."""
    text_fields: list[str] = field(default_factory=list)
    """Columns that make an item's text, in order; empty takes every string column but ids."""
    user_column: str | None = None
    """online_retail only: the column of users; null is CustomerID, InvoiceNo makes every
    invoice a user (the published preprocessing)."""
    keep_all_lines: bool = False
    """online_retail only: keep every line with a description, as published tables do: cancellations, postage,
    fees and warehouse notes too."""
    line_kcore: int = 0
    """online_retail only: k-core counted on lines, before those of one invoice and item become one event;
    `filters.kcore` counts events. 0 is off."""
    default_event: str = "purchase"
    """Kind of every event where the file has no `event` column."""
    kinds: dict[str, str] = field(default_factory=dict)
    """Event kind in the file -> kind of the dataset, e.g. `{transaction: purchase}`; others keep theirs."""
    event_weights: dict[str, float] = field(default_factory=dict)
    """Weight of each event kind in training; 0 ignores a kind, `*` stands for every kind that is not named.
    Empty: impressions 0, others 1."""
    max_text_chars: int = 1000
    """Item texts are cut to this many characters."""
    max_reject_fraction: Any = 0.01
    """Share of rejected rows above which `prepare` stops; a number, or `{items: 0.01, events: 0.4}`."""
    filters: FilterConfig = field(default_factory=FilterConfig)

    def __post_init__(self) -> None:
        """Check ranges."""
        for table in ("items", "events"):
            limit = self.reject_limit(table)
            require(
                isinstance(limit, int | float) and 0.0 <= limit <= 1.0,
                "data.max_reject_fraction must lie in 0..1, or be such numbers for items and events",
            )
        require(self.max_text_chars > 0, "data.max_text_chars must be positive")
        at_least(0, self, "data.", "line_kcore")
        # `data.columns.items.item_id=sku` makes a mapping in a mapping: the same as `{items.item_id: sku}`.
        object.__setattr__(self, "columns", _flat(self.columns))
        object.__setattr__(self, "exclude", _flat(self.exclude))
        for name, kind in self.types.items():
            known = ("string", "number", "bool", "list", "time")
            require(kind in known, f"data.types.{name} must be one of {', '.join(known)}, not '{kind}'")
            of_events = name.startswith("events.")
            require(
                not of_events or (name, kind) == ("events.item_id", "list"),
                f"data.types.{name}: of the events, item_id alone can be given a type, and it is list",
            )
        for rule in self.match_ids:
            require(rule in ("case", "zeros"), f"data.match_ids: '{rule}' is neither case nor zeros")
        for table in self.without_header:
            require(
                table in ("items", "events"), f"data.without_header: '{table}' is neither items nor events"
            )
        require(
            self.encoding is None or _is_encoding(self.encoding),
            f"data.encoding: '{self.encoding}' is no encoding; spreadsheets often write cp1252",
        )
        for kind, weight in self.event_weights.items():
            require(weight >= 0.0, f"data.event_weights.{kind} must be 0 or more")

    def reject_limit(self, table: str) -> float:
        """Return the share of rejected rows above which `prepare` stops, of `items` or `events`."""
        limit = self.max_reject_fraction
        if isinstance(limit, Mapping):
            unknown = set(limit) - {"items", "events"}
            require(not unknown, f"data.max_reject_fraction: {', '.join(sorted(unknown))} is no table")
            limit = limit.get(table, 0.01)
        return limit  # type: ignore[no-any-return]
