"""Which columns describe an item in words: the default of `data.text_fields`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from conf.errors import InputError, closest
from features.data import schema
from features.text.titles import title_column

_CAMEL_ID = re.compile(r"[a-z0-9]I[dD]s?$")
_WORD_ID = re.compile(r"(?:^|[^a-z])ids?$")
_CODE_NAMES = frozenset(
    "asin sku ean upc gtin isbn barcode uuid guid hash slug locale currency checksum etag".split()
)
_LINK_NAMES = frozenset(
    "url urls uri link links href src image images img photo picture thumbnail video".split()
)
_DATE_NAMES = frozenset("date datetime time timestamp created updated modified published".split())
_TITLES = frozenset(("title", "name"))
_QUALIFIERS = frozenset(
    "brand category department maker manufacturer vendor seller store shop class type file option variant "
    "image alt group seo meta collection color colour size section garment index subtitle user customer "
    "author artist attribute tag supplier company country language".split()
)
_PRICE_NAMES = frozenset(
    "price prices preis preise prix precio preço preco prezzo cost msrp rrp uvp tax vat shipping".split()
)
_STOCK_NAMES = frozenset(
    "stock availability available inventory bestand lagerbestand lager verfügbarkeit estoque "
    "disponibilidade disponibilidad disponibilité published visibility status".split()
)
_STOCK = (
    r"(?i)^\s*(?:(?:in|out)[ _-]?(?:of[ _-]?)?stock|instock|outofstock|pre-?order|back-?order|sold out|"
    r"available)\s*$"
)
_AMOUNT = r"^\s*[+-]?(?:[A-Z]{3}|R?\p{Sc}|R\$)?\s*\d[\d.,' ]*\s*(?:[A-Z]{3}|\p{Sc})?\s*$"
_SIGNED = r"\d[.,]\d{1,2}\D*$|[A-Z]{3}|\p{Sc}"
_MOSTLY = 0.9
_CONSTANT = 10
"""Least number of items for which a constant column is uninformative."""
_DESCRIPTIONS = frozenset(
    "description descriptions desc body detail details summary features feature about content review".split()
)
_URL = r"^\s*(?:https?://|www\.)\S+\s*$"
_DATE = r"^\s*\d{4}[-/]\d{1,2}[-/]\d{1,2}(?:[T ]\d{1,2}:\d{2}.*)?\s*$|^\s*\d{1,2}[-/.]\d{1,2}[-/.]\d{4}\s*$"
_CODE = r"^\s*\S*\d\S*\s*$"
_SAMPLE = 10_000
"""Sampled values per column."""


def _words(name: str) -> list[str]:
    return [w for w in re.split(r"[\W_]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()) if w]


def is_id_name(name: str) -> bool:
    """Whether a column name says that it holds ids: `id`, `brand_id`, `productId`; not `liquid`."""
    return bool(_WORD_ID.search(name.lower()) or _CAMEL_ID.search(name))


def _looks_like(column: pl.Series) -> str:
    """Return the type of values without words: links, dates, prices, stock or codes; empty otherwise."""
    if isinstance(column.dtype, pl.List):
        column = column.explode(empty_as_null=True, keep_nulls=True)
    values = column.drop_nulls().head(_SAMPLE)
    if values.is_empty():
        return "empty"

    def share(pattern: str) -> float:
        return float(values.str.contains(pattern).sum()) / len(values)

    if share(_URL) > _MOSTLY / 2:
        return "links"
    if share(_DATE) > _MOSTLY:
        return "dates"
    if share(_STOCK) > _MOSTLY:
        return "stock"
    if share(_AMOUNT) > _MOSTLY and share(_SIGNED) > _MOSTLY / 2:
        return "prices"
    # A code is one word with a digit, hardly ever repeated.
    if share(_CODE) > 0.95 and values.n_unique() > 0.5 * len(values) and len(values) > 1:
        return "codes"
    return ""


def why_uninformative(name: str, column: pl.Series) -> str:
    """Return why a column does not describe items; empty where it may.

    Args:
        name: the column's name.
        column: its values, strings or lists of strings.
    """
    words = set(_words(name))
    if is_id_name(name) or words & _CODE_NAMES:
        return "ids"
    if words & _LINK_NAMES:
        return "links"
    if words & _DATE_NAMES or name.lower().endswith("_at"):
        return "dates"
    if words & _TITLES:
        return ""
    if words & _PRICE_NAMES:
        return "prices"
    if words & _STOCK_NAMES:
        return "stock"
    if (
        column.dtype == pl.String
        and len(column) >= _CONSTANT
        and column.n_unique() == 1
        and column[0] is not None
    ):
        return "the same for all"
    return _looks_like(column)


def _rank(name: str, title: str | None) -> int:
    """Return 0 for the title, 1 for most columns, 2 for long descriptions, which truncation may cut."""
    words = set(_words(name))
    if name == title or title is None and words & _TITLES and not words & _QUALIFIERS:
        return 0
    return 2 if words & _DESCRIPTIONS else 1


def strings_of(frame: pl.DataFrame) -> list[str]:
    """Return the columns of text, or of lists of texts, beside the id."""
    return [
        c for c, t in frame.schema.items() if t in (pl.String, pl.List(pl.String)) and c != schema.ITEM_ID
    ]


def choose_text_fields(
    frame: pl.DataFrame, configured: Sequence[str], where: str
) -> tuple[list[str], list[str]]:
    """Choose the text fields of a catalogue, and the string attributes as fallback for items without any.

    Unless configured, these are all string columns except ids, codes, links and dates; the title comes first
    and descriptions last, since texts are truncated at the end.

    Args:
        frame: the items table.
        configured: `data.text_fields`.
        where: the table's name in messages.

    Returns:
        Text fields in order, and fallback fields in the table's order.

    Raises:
        InputError: a configured field that the table does not have.
    """
    strings = strings_of(frame)
    telling = [c for c in strings if not why_uninformative(c, frame[c])]
    if configured:
        for name in configured:
            if name not in frame.columns:
                existing = [c for c in frame.columns if c != schema.ITEM_ID]
                raise InputError(
                    f"data.text_fields: no column '{name}' in {where}{closest(name, existing) or '.'} "
                    f"Columns: {', '.join(existing)}"
                )
        return list(configured), [c for c in telling if c not in configured]
    # Lists (tags, categories) follow the single strings of the same rank.
    title = title_column(telling)
    return sorted(telling, key=lambda c: (_rank(c, title), frame.schema[c] != pl.String)), []
