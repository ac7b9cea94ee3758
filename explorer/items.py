"""Items as people see them: title, price, picture, attributes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import polars as pl

from features.data import schema
from features.data.dataset import Catalogue
from features.text.titles import shortened, shown_title, title_column

_PICTURES: Final = (
    "imageurl", "imagelink", "image", "images", "imagesrc", "pictureurl", "picture", "photo", "photourl",
    "thumbnail", "thumbnailurl", "img", "imgurl", "imurl", "bild", "bildurl", "imagen", "immagine",
)  # fmt: skip
"""Names of the column with pictures, without case and separators."""
_ADDRESS: Final = re.compile(r"https?://[^\s|]+", re.IGNORECASE)
_FILE: Final = re.compile(r"https?://\S+\.(jpe?g|png|webp|gif|avif)(\?\S*)?", re.IGNORECASE)
SAMPLE: Final = 200
"""Rows of a column that are looked at."""
VALUE_CHARS: Final = 60
"""Length of an attribute's value from which on it is shortened."""


@dataclass(frozen=True)
class ItemCard:
    """What is shown of an item."""

    item_id: str
    title: str
    price: str
    """With two decimals, in the shop's currency; empty without one."""
    picture: str
    """Address of the picture; empty without one. It lies with another host."""
    attributes: tuple[tuple[str, str], ...]
    """Names and values of further attributes that are there."""
    text: str
    """What the text encoder reads."""


class ItemTable:
    """The cards of a catalogue."""

    def __init__(self, catalogue: Catalogue) -> None:
        """Find the columns of title and picture."""
        self.catalogue = catalogue
        self.title_column = title_column(catalogue.attributes)
        self.picture_column = picture_column(catalogue.frame.select(catalogue.attributes))
        special = {self.title_column, self.picture_column, schema.PRICE}
        self._others = [name for name in catalogue.attributes if name not in special]

    def title(self, row: int) -> str:
        """Return an item's title, or the beginning of its text, or its id where it has neither."""
        title = None if self.title_column is None else self.catalogue.frame[self.title_column][row]
        return shown_title(title, self.catalogue.texts[row]) or self.catalogue.ids[row]

    def card(self, row: int) -> ItemCard:
        """Return what is shown of an item."""
        values = self.catalogue.frame.row(row, named=True)
        picture = "" if self.picture_column is None else _first_address(values[self.picture_column])
        attributes = [(name, shown_value(values[name])) for name in self._others]
        return ItemCard(
            self.catalogue.ids[row],
            self.title(row),
            shown_price(values.get(schema.PRICE)),
            picture,
            tuple((name, value) for name, value in attributes if value),
            self.catalogue.texts[row],
        )

    def find(self, text: str, limit: int = 10) -> list[int]:
        """Return rows of items whose id begins with a text, then those whose title contains it.

        Args:
            text: what was typed, whatever its case.
            limit: how many at most.

        """
        wanted = text.strip()
        if not wanted:
            return []
        ids = pl.Series(self.catalogue.ids)
        rows = ids.str.starts_with(wanted).arg_true().head(limit).to_list()
        if self.title_column is not None and len(rows) < limit:
            titles = self.catalogue.frame[self.title_column].cast(pl.String, strict=False).str.to_lowercase()
            named = titles.str.contains(wanted.lower(), literal=True).fill_null(False).arg_true()
            rows += [row for row in named.head(2 * limit).to_list() if row not in rows]
        return rows[:limit]


def shown_price(value: object) -> str:
    """Return a price with two decimals; empty for a missing one."""
    return "" if value is None else f"{float(str(value)):,.2f}"


def shown_value(value: object) -> str:
    """Return an attribute's value in one short line; empty for a missing one."""
    if isinstance(value, (list, pl.Series)):
        value = ", ".join(str(part) for part in value if part is not None)
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    return shortened(" ".join(str(value).split()), VALUE_CHARS)


def picture_column(frame: pl.DataFrame) -> str | None:
    """Return the column whose values are addresses of pictures; None where there is none.

    A column with a telling name needs addresses, any other one addresses of picture files.
    """
    by_key = {re.sub(r"[\W_]+", "", name).lower(): name for name in frame.columns}
    for key in _PICTURES:
        if key in by_key and _mostly(frame[by_key[key]], _ADDRESS):
            return by_key[key]
    return next((name for name in frame.columns if _mostly(frame[name], _FILE)), None)


def _mostly(column: pl.Series, pattern: re.Pattern[str]) -> bool:
    """Return whether at least half of the values of a column's beginning match."""
    if not isinstance(column.dtype, (pl.String, pl.List)):
        return False
    values = column.drop_nulls().head(SAMPLE).to_list()
    found = sum(bool(pattern.fullmatch(address)) for v in values if (address := _first_address(v)))
    return bool(values) and 2 * found >= len(values)


def _first_address(value: object) -> str:
    """Return the first address in a value; empty without one."""
    if isinstance(value, (list, pl.Series)):
        return next((found for part in value if (found := _first_address(part))), "")
    address = _ADDRESS.search(str(value)) if value is not None else None
    return address.group(0).rstrip(",;") if address else ""
