"""Presets by file: the columns that identify exports of platforms and data sets."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

ITEMS, EVENTS = "items", "events"


@dataclass(frozen=True)
class Known:
    """A preset and the signature of its files."""

    preset: str
    items: tuple[str, ...] = ()
    """Alternatives: column names divided by `|`, all of which a file of items has."""
    events: tuple[str, ...] = ()
    needs: tuple[str, ...] = (ITEMS,)
    """Tables that the preset requires."""
    own_events: bool = True
    """Whether events have the preset's own layout; otherwise any table of events is accepted."""


_KNOWN = (
    Known("shopify",
          ("Handle|Title|Variant Price", "URL handle|Title|Price", "Handle|Title|Variant SKU"),
          ("Lineitem name|Created at",)),
    Known("woocommerce",
          ("ID|Type|SKU|Name|Published", "Type|SKU|Name|Regular price", "ID|Typ|Artikelnummer|Name",
           "Typ|Name|Veröffentlicht|Kategorien", "Type|Nom|Publié|Catégories",
           "Tipo|Nombre|Publicado|Categorías",
           "Tipo|Nome|Pubblicato|Categorie", "Tipo|Nome|Publicado|Categorias",
           "Type|Naam|Gepubliceerd|Categorieën", "Typ|Nazwa|Opublikowano|Kategorie",
           "Rodzaj|Nazwa|Opublikowano|Kategorie"),
          ("Order Number|Item Name", "order_number|item_name", "order_id|item_name", "order_number|item_sku",
           "Order #|Product(s)")),
    Known("magento", ("sku|product_type|attribute_set_code",), ("sku|qty_ordered|created_at",)),
    Known("ga4", (), ("event_name|event_timestamp|user_pseudo_id|items",), (EVENTS,)),
    Known("hm", ("article_id|prod_name",), ("t_dat|customer_id|article_id",), (ITEMS, EVENTS)),
    Known("retailrocket", ("timestamp|itemid|property|value", "categoryid|parentid"),
          ("timestamp|visitorid|event|itemid",), (ITEMS, EVENTS)),
    Known("otto", (), ("session|events", "session|aid|ts|type"), (EVENTS,)),
    Known("movielens", ("movieId|title|genres",), ("userId|movieId|rating|timestamp",), (ITEMS, EVENTS)),
    Known("online_retail", (), ("InvoiceNo|StockCode|Description|Quantity|InvoiceDate",
                                "Invoice|StockCode|Description|Quantity|InvoiceDate"), (EVENTS,)),
    Known("amazon_reviews", ("asin|title|categories", "parent_asin|title|main_category"),
          ("reviewerID|asin|overall", "user_id|parent_asin|rating|timestamp"), (ITEMS, EVENTS)),
    Known("merchant_feed", ("id|title|link|image link",
                            "id|title|availability|condition",
                            "id|title|price|availability", "id|title|google product category"),
          (), (ITEMS,), False),
)  # fmt: skip
_TOKENS = re.compile(r".+:(?:token|token_seq|float|float_seq)")
_NEWS = re.compile(r"N\d+\t[^\t]*\t[^\t]*\t[^\t]+\t[^\t]*\thttps?://[^\t]*\t.*")
_BEHAVIOURS = re.compile(r"\d+\tU\d+\t\d+/\d+/\d+ [^\t]+\t[^\t]*\t(?:N\d+-[01] ?)+")
_MOVIE = re.compile(r"\d+::.+ \(\d{4}\)::[^:]*")
_RATING = re.compile(r"\d+::\d+::\d(?:\.\d)?::\d{9,10}")
_CLICK = re.compile(r"\d+,\d{4}-\d\d-\d\dT[\d:.]+Z,\d+,\w+(?:,\d+)?")


def _spelled(name: str) -> str:
    return name.strip().casefold().removeprefix("g:").replace("_", " ")


def _has(columns: Iterable[str], alternatives: Sequence[str]) -> bool:
    have = {_spelled(c) for c in columns}
    return any({_spelled(c) for c in each.split("|")} <= have for each in alternatives)


def by_double_colons(first_line: str) -> list[tuple[str, str]]:
    """Return what a file of MovieLens is that divides its columns by `::`; no table of text reads it."""
    forms = ((_MOVIE, ITEMS), (_RATING, EVENTS))
    return [("movielens", table) for form, table in forms if form.fullmatch(first_line)]


def known_by(columns: Sequence[str], first_line: str) -> list[tuple[str, str]]:
    """Return the presets that a file matches, each with its table in them.

    Args:
        columns: the file's columns.
        first_line: its first line, which identifies files without a header; empty for other formats.
    """
    if _NEWS.fullmatch(first_line):
        return [("mind", ITEMS)]
    if _BEHAVIOURS.fullmatch(first_line):
        return [("mind", EVENTS)]
    if _CLICK.fullmatch(first_line):
        return [("yoochoose", EVENTS)]
    if columns and all(_TOKENS.fullmatch(c) for c in columns):
        return [
            ("recbole", EVENTS if any(c.startswith(("user_id:", "session_id:")) for c in columns) else ITEMS)
        ]
    found = []
    for each in _KNOWN:
        if _has(columns, each.items):
            found.append((each.preset, ITEMS))
        if _has(columns, each.events):
            found.append((each.preset, EVENTS))
    return found


def _needs(preset: str) -> tuple[str, ...]:
    own = {"mind": (ITEMS, EVENTS), "recbole": (ITEMS, EVENTS), "yoochoose": (EVENTS,)}
    return own.get(preset) or next(k.needs for k in _KNOWN if k.preset == preset)


def reads_any_events(preset: str) -> bool:
    """Return whether a preset of items accepts any table of events."""
    return any(k.preset == preset and not k.own_events for k in _KNOWN)


def reads_any_items(preset: str) -> bool:
    """Return whether a preset of events accepts any catalogue."""
    return preset == "ga4"


def choose_preset(files: Sequence[Sequence[tuple[str, str]]]) -> str | None:
    """Return the preset that reads most of the files, or None if none has its required tables.

    Args:
        files: per file, what `known_by` returned.
    """
    counts: dict[str, int] = {}
    for preset in {name for file in files for name, _ in file}:
        tables = {table for file in files for name, table in file if name == preset}
        if set(_needs(preset)) <= tables:
            counts[preset] = sum(any(name == preset for name, _ in file) for file in files)
    order = [k.preset for k in _KNOWN]
    return max(
        counts,
        key=lambda p: (counts[p], p != "merchant_feed", -order.index(p) if p in order else 0),
        default=None,
    )
