"""Product feeds in XML (RSS, Atom, and other marketplaces' own): an element per product, read as a stream.

The parser builds no document: every product's element becomes a row of text. Declared entities are refused,
since a feed needs none and a few bytes of them can expand to gigabytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO
from xml.parsers import expat

import polars as pl

from conf.errors import InputError

_PRODUCTS = frozenset("item entry product offer shopitem produkt artikel article record row".split())
"""Names of the elements that are products, in lower case and without a namespace."""
_BLOCK = 1 << 16
_BATCH = 20_000


class _Rows:
    """Collects the products of a document: one row of text per element."""

    def __init__(self) -> None:
        self.rows: list[dict[str, str]] = []
        self._row: dict[str, str] | None = None
        self._of_namespace: set[str] = set()
        self._path: list[str] = []
        self._text: list[str] = []

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Handle the start of an element: a product, or a field of one."""
        local = name.rpartition(" ")[2]
        if self._row is None:
            if local.lower() in _PRODUCTS:
                self._row = {key.rpartition(" ")[2]: value for key, value in attributes.items()}
                self._of_namespace, self._path = set(), []
            return
        self._path.append(local)
        self._text = [attributes["href"]] if "href" in attributes else []

    def text(self, content: str) -> None:
        """Handle text of a field."""
        if self._row is not None and self._path:
            self._text.append(content)

    def end(self, name: str) -> None:
        """Handle the end of an element; texts of a repeated field are joined."""
        if self._row is None:
            return
        if not self._path:
            self.rows.append(self._row)
            self._row = None
            return
        value = " ".join("".join(self._text).split())
        key = "_".join(self._path)
        spaced = " " in name  # `g:title` replaces the feed's own `title`
        if value and (spaced or key not in self._of_namespace):
            former = self._row.get(key)
            fresh = former is None or former == value or (spaced and key not in self._of_namespace)
            self._row[key] = value if fresh else f"{former}, {value}"
            if spaced:
                self._of_namespace.add(key)
        self._path.pop()
        self._text = []


def _refuse_entities(name: str, *_: object) -> None:
    raise InputError(f"it declares the entity '{name}'; a feed needs none, and they are not expanded")


def _batches(file: IO[bytes]) -> Iterator[list[dict[str, str]]]:
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True
    rows = _Rows()
    parser.StartElementHandler = rows.start
    parser.EndElementHandler = rows.end
    parser.CharacterDataHandler = rows.text
    parser.EntityDeclHandler = _refuse_entities
    while block := file.read(_BLOCK):
        parser.Parse(block, False)
        if len(rows.rows) >= _BATCH:
            yield rows.rows
            rows.rows = []
    parser.Parse(b"", True)
    yield rows.rows


def read_feed(path: str) -> pl.DataFrame:
    """Read the products of a feed, every field as text; a nested field is named `shipping_price`.

    Raises:
        InputError: the file is no well-formed XML, declares entities, or holds no product.
    """
    frames: list[pl.DataFrame] = []
    try:
        with Path(path).open("rb") as file:
            for rows in _batches(file):
                if rows:
                    names = dict.fromkeys(key for row in rows for key in row)
                    frames.append(pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String)))
    except expat.ExpatError as error:
        raise InputError(f"{path}: no well-formed XML: {error}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if not frames:
        raise InputError(f"{path}: no product in it; expected elements such as <item>, <entry> or <product>")
    return pl.concat(frames, how="diagonal")
