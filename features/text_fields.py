"""Which columns say something about an item: the default of `data.text_fields`."""

from __future__ import annotations

import re
from collections.abc import Sequence

import polars as pl

from conf.errors import InputError, closest
from features import schema

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
    "brand category department maker manufacturer vendor seller store shop class type file".split()
)
_DESCRIPTIONS = frozenset(
    "description descriptions desc body detail details summary features feature about content review".split()
)
_URL = r"^\s*(?:https?://|www\.)\S+\s*$"
_DATE = r"^\s*\d{4}[-/]\d{1,2}[-/]\d{1,2}(?:[T ]\d{1,2}:\d{2}.*)?\s*$|^\s*\d{1,2}[-/.]\d{1,2}[-/.]\d{4}\s*$"
_CODE = r"^\s*\S*\d\S*\s*$"
_SAMPLE = 10_000
"""Values per column that decide what it looks like."""


def _words(name: str) -> list[str]:
    return [w for w in re.split(r"[\W_]+", re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name).lower()) if w]


def is_id_name(name: str) -> bool:
    """Whether a column name says that it holds ids: `id`, `brand_id`, `productId`; not `liquid`."""
    return bool(_WORD_ID.search(name.lower()) or _CAMEL_ID.search(name))


def _looks_wordless(column: pl.Series) -> bool:
    """Whether the values are links, dates or codes (one word with a digit, hardly ever repeated)."""
    if isinstance(column.dtype, pl.List):
        column = column.explode(empty_as_null=True, keep_nulls=True)
    values = column.drop_nulls().head(_SAMPLE)
    if values.is_empty():
        return True

    def share(pattern: str) -> float:
        return float(values.str.contains(pattern).sum()) / len(values)

    if share(_URL) > 0.5 or share(_DATE) > 0.9:
        return True
    return share(_CODE) > 0.95 and values.n_unique() > 0.5 * len(values) and len(values) > 1


def _says_nothing(name: str, column: pl.Series) -> bool:
    words = set(_words(name))
    if is_id_name(name) or words & (_CODE_NAMES | _LINK_NAMES | _DATE_NAMES) or name.lower().endswith("_at"):
        return True
    return not words & _TITLES and _looks_wordless(column)


def _rank(name: str) -> int:
    """0 for the column that names the item, 1 for most, 2 for long descriptions that truncation may cut."""
    words = _words(name)
    if set(words) & _TITLES and not set(words) & _QUALIFIERS:
        return 0
    return 2 if set(words) & _DESCRIPTIONS else 1


def choose_text_fields(
    frame: pl.DataFrame, configured: Sequence[str], where: str
) -> tuple[list[str], list[str]]:
    """Choose the text fields of a catalogue and the string attributes that stand in where an item has none.

    Without a configured choice every string column counts but ids, codes, links and dates; the one that names
    the item comes first and descriptions last, since the end is cut when a text is too long.

    Args:
        frame: the items table.
        configured: `data.text_fields`.
        where: the table's name in messages.

    Returns:
        Text fields in order, and fallback fields in the table's order.

    Raises:
        InputError: a configured field that the table does not have.
    """
    strings = [
        c for c, t in frame.schema.items() if t in (pl.String, pl.List(pl.String)) and c != schema.ITEM_ID
    ]
    telling = [c for c in strings if not _says_nothing(c, frame[c])]
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
    return sorted(telling, key=lambda c: (_rank(c), frame.schema[c] != pl.String)), []
