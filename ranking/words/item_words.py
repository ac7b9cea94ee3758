"""The words and names that an item is indexed by."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import polars as pl

from features.data import schema
from features.data.dataset import Catalogue
from features.text.item_text import TextTemplate, clean_text, label
from features.text.titles import shown_title, title_column
from features.text.words import folded, words

VALUED: Final = 1
"""Level of a name that is the value of a field, as its type or brand."""
TITLED: Final = 2
"""Level of a name that is a title or an entire text."""
WRITTEN: Final = 3
"""Level of an exact title but for case and spaces: other titles may have the same words."""
IDENTIFIED: Final = 4
"""Level of a name that is an item id."""


@dataclass(frozen=True)
class ItemWords:
    """The index terms of one item."""

    words: list[str]
    """Words of the text without its field labels, and again those of the title, which so counts twice; empty
    where the text is only the id."""
    names: dict[int, int]
    """Levels of its names, by key."""


class ItemReader:
    """Extracts the index terms of items, for a bundle's and later ones alike."""

    def __init__(self, template: TextTemplate, attributes: Sequence[str]) -> None:
        """Determine the title attribute.

        Args:
            template: how texts are made of fields.
            attributes: names of the catalogue's attributes.

        """
        self.column = title_column(attributes)
        """Attribute of the displayed titles; None where texts begin with them."""
        first = template.fields[0] if template.fields and template.fields[0] in attributes else None
        self.title = self.column or first
        """Attribute whose words count twice; None where there is none."""
        labels = [re.escape(label(name)) for name in (*template.fields, *template.fallback)]
        self._labels = re.compile(rf"(?:^|[.!?…] )(?:{'|'.join(labels)}): ") if labels else None

    def catalogue(self, catalogue: Catalogue) -> list[ItemWords]:
        """Return the index terms of every item of a bundle."""
        frame = catalogue.frame
        titles: list[str | None] = [None] * len(catalogue)
        if self.title is not None and self.title in frame.columns:
            titles = _titles(frame[self.title])
        ids = clean_text(frame[schema.ITEM_ID]).to_list()
        items = zip(catalogue.ids, ids, catalogue.texts, titles, strict=True)
        return [self._read(item_id, plain, text, title) for item_id, plain, text, title in items]

    def item(self, item_id: str, text: str, title: object) -> ItemWords:
        """Return the index terms of one item.

        Args:
            item_id: its id.
            text: its rendered text.
            title: value of the attribute `title`, if there is one.

        """
        worded = isinstance(title, str | int) and not isinstance(title, bool)
        plain, value = clean_text(pl.Series([item_id, str(title) if worded else None]))
        return self._read(item_id, plain, text, value)

    def _read(self, item_id: str, plain_id: str | None, text: str, title: str | None) -> ItemWords:
        if text in (item_id, plain_id, ""):
            return ItemWords([], {id_key(item_id): IDENTIFIED})
        values = [text] if self._labels is None else self._labels.split(text)
        titles = (*([title] if title else ()), shown_title(title if self.column else None, text), text)
        names = {key: VALUED for value in values if (key := title_key(value)) is not None}
        names |= {key: TITLED for name in titles if (key := title_key(name)) is not None}
        names |= {written_key(name): WRITTEN for name in titles}
        names[id_key(item_id)] = IDENTIFIED
        found = [word for value in values for word in words(value)]
        return ItemWords([*found, *(words(title) if title else ())], names)


def _titles(column: pl.Series) -> list[str | None]:
    """Return the titles of a column, cleaned like texts; None for types other than text and integers."""
    if column.dtype != pl.String and not column.dtype.is_integer():
        return [None] * len(column)
    return clean_text(column.cast(pl.String)).to_list()


def id_key(item_id: str) -> int:
    """Return the key of an item id, ignoring case."""
    return _key("id", item_id.strip().casefold())


def written_key(title: str) -> int:
    """Return the key of an exact title, ignoring case and spaces."""
    return _key("written", " ".join(title.casefold().split()))


@lru_cache(1 << 12)
def title_key(title: str) -> int | None:
    """Return the key of a title or value, by its folded words; None where it has none."""
    parts = folded(title)
    return _key("title", " ".join(parts)) if parts else None


def _key(kind: str, name: str) -> int:
    """Return a 63-bit hash: a million names collide in one of twenty million catalogues."""
    digest = hashlib.blake2b(f"{kind} {name}".encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
