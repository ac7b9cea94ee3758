"""JSON that is not JSON Lines: objects that span several lines, and tables inside an object."""

from __future__ import annotations

import codecs
import gzip
import json
from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import polars as pl

Row: TypeAlias = dict[str, Any]
KEY: Final = "key"
"""Column of the keys of objects by id; keys of a second level are `key_2`."""

_OPEN = ("{", "[", ",")
"""Endings of an object's first line when the object spans several lines."""
_WHOLE = (".json", ".json.gz")
_ABOUT = frozenset(
    "meta metadata _meta links _links pagination paging page pageinfo schema info included errors extensions "
    "_shards aggregations".split()
)
"""Keys of an API response's metadata, in lower case."""
_FEWEST = 2
"""Least keys of an object, or rows of a grid, for it to be a table."""
_SHARE_OF_FIELDS = 0.5
_SHARE_OF_INNER_FIELDS = 0.7
"""Mean share of all fields that a row of one table has; documents of several tables have less overlap."""


def spans_lines(line: str) -> bool:
    """Return whether a first line begins an object that spans several lines."""
    return line.startswith("{") and line.rstrip().endswith(_OPEN)


def read_bytes(path: str) -> bytes:
    """Return the content of a file, compressed or not, without a byte order mark."""
    opener = gzip.open if path.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        content: bytes = file.read()
    return content.removeprefix(codecs.BOM_UTF8)


def _documents(text: str) -> list[Any]:
    """Parse the concatenated JSON values of a text."""
    decoder = json.JSONDecoder()
    found, position = [], 0
    while text[position:].strip():
        position += len(text[position:]) - len(text[position:].lstrip())
        value, position = decoder.raw_decode(text, position)
        found.append(value)
    return found


def _field_overlap(rows: Sequence[Any]) -> float:
    """Return the mean share of all fields that a row has; 0 where some rows are no objects."""
    if not rows or not all(isinstance(row, dict) and row for row in rows):
        return 0.0
    return sum(map(len, rows)) / (len(rows) * len({name for row in rows for name in row}))


def _with_keys(pairs: Sequence[tuple[tuple[str, ...], Row]]) -> list[Row]:
    """Add the keys of rows to their fields, unless a field repeats the key."""
    names = (KEY, f"{KEY}_2")[: len(pairs[0][0])]
    repeated = {
        position
        for position in range(len(names))
        if any(all(row.get(field) == keys[position] for keys, row in pairs) for field in pairs[0][1])
    }
    return [
        {names[n]: key for n, key in enumerate(keys) if n not in repeated and names[n] not in row} | row
        for keys, row in pairs
    ]


def _keyed(document: Row) -> list[Row] | None:
    """Return the rows of an object whose keys are ids: `{"S-1": {...}, ...}` or `{"u1": [{...}], ...}`."""
    values = list(document.values())
    if len(values) < _FEWEST:
        return None
    listed = all(isinstance(v, list) for v in values)
    inner: list[tuple[tuple[str, ...], Any]] = []
    for key, rows in document.items():
        if isinstance(rows, dict):
            inner += [((key, own), row) for own, row in rows.items()]
        elif isinstance(rows, list):
            inner += [((key,), row) for row in rows]
    overlap, inside = _field_overlap(values), _field_overlap([row for _, row in inner])
    if overlap >= max(_SHARE_OF_FIELDS, inside):
        return _with_keys([((key,), row) for key, row in document.items()])
    if inside >= _SHARE_OF_INNER_FIELDS and (listed or overlap):
        return _with_keys(inner)
    return None


def _by_column(document: Row) -> list[Row] | None:
    """Return the rows of an object of columns, as pandas writes tables.

    `{"title": {"0": "Hat", "1": "Cap"}}`, `{"title": ["Hat", "Cap"]}` and `{"columns": ["title"], "data":
    [["Hat"], ["Cap"]]}`.
    """
    names, data = document.get("columns"), document.get("data")
    if isinstance(names, list) and isinstance(data, list) and data:
        return _grid([names, *data])
    columns = list(document.values())
    if columns and all(isinstance(c, dict) for c in columns):
        numbers = list(columns[0])
        if numbers != [str(n) for n in range(len(numbers))] or any(list(c) != numbers for c in columns):
            return None
        columns = [list(c.values()) for c in columns]
    elif not columns or not all(isinstance(c, list) and len(c) == len(columns[0]) for c in columns):
        return None
    if len(columns) < _FEWEST or not columns[0] or any(isinstance(v, dict) for c in columns for v in c):
        return None
    return [dict(zip(document, row, strict=True)) for row in zip(*columns, strict=True)]


def _grid(rows: Sequence[Any]) -> list[Row] | None:
    """Return the rows of a list of lists, the first being the header."""
    if len(rows) < _FEWEST or not all(isinstance(row, list) for row in rows):
        return None
    header, *others = rows
    named = all(isinstance(name, str) for name in header) and len(set(header)) == len(header)
    if not named or any(len(row) > len(header) for row in others):
        return None
    return [dict(zip(header, row, strict=False)) for row in others]


def _wrapped(document: Any) -> list[Row] | None:  # noqa: ANN401 - what JSON holds
    """Return the table in an object: its only list of objects, objects under ids, or columns.

    `{"count": 2, "rows": [{...}]}` and `{"data": {"products": [{...}]}}` are API responses, whose
    metadata (`meta`, `links`) is ignored.
    """
    if not isinstance(document, dict):
        return None
    if (rows := _by_column(document) or _keyed(document)) is not None:
        return rows
    parts = {
        key: v for key, v in document.items() if key.lower() not in _ABOUT and isinstance(v, dict | list)
    }
    tables = [v for v in parts.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    nested = [v for v in parts.values() if isinstance(v, dict)]
    if tables or len(nested) != 1:
        return tables[0] if len(tables) == 1 and not nested else None
    return _wrapped(nested[0])


def read_documents(path: str) -> pl.DataFrame | None:
    """Read a file of objects that span several lines, or of one object around the table.

    An API response (`{"count": 2, "products": [...]}`) is read as the table that it contains. Where the keys
    of an object are ids, these are the column `key`.

    Returns:
        A row per object, or None where the file is not of that form.
    """
    try:
        rows = _documents(read_bytes(path).decode())
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    if len(rows) == 1 and path.lower().endswith(_WHOLE):
        rows = (_grid(rows[0]) if isinstance(rows[0], list) else _wrapped(rows[0])) or rows
    if not rows or not all(isinstance(row, dict) for row in rows):
        return None
    return pl.read_json(json.dumps(rows).encode(), infer_schema_length=None)
