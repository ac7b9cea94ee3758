"""JSON that is not divided by lines: objects spread over several lines, and a table wrapped in an object."""

from __future__ import annotations

import codecs
import gzip
import json
from typing import Any

import polars as pl

_OPEN = ("{", "[", ",")
"""How the first line of an object ends that goes on in the next one."""
_WHOLE = (".json", ".json.gz")


def goes_on(line: str) -> bool:
    """Whether a first line begins an object that further lines continue."""
    return line.startswith("{") and line.rstrip().endswith(_OPEN)


def read_bytes(path: str) -> bytes:
    """Return the content of a file, compressed or not, without a byte order mark."""
    opener = gzip.open if path.lower().endswith(".gz") else open
    with opener(path, "rb") as file:
        content: bytes = file.read()
    return content.removeprefix(codecs.BOM_UTF8)


def _documents(text: str) -> list[Any]:
    """Divide a text into the JSON values that stand in it one after the other."""
    decoder = json.JSONDecoder()
    found, place = [], 0
    while text[place:].strip():
        place += len(text[place:]) - len(text[place:].lstrip())
        value, place = decoder.raw_decode(text, place)
        found.append(value)
    return found


def _wrapped(document: Any) -> list[Any] | None:  # noqa: ANN401 - what JSON holds
    """Return the only list of objects in an object: the table in `{"count": 2, "rows": [{...}, {...}]}`."""
    if not isinstance(document, dict):
        return None
    tables = [v for v in document.values() if isinstance(v, list) and v and isinstance(v[0], dict)]
    nested = any(isinstance(v, dict) for v in document.values())
    return tables[0] if len(tables) == 1 and not nested else None


def read_documents(path: str) -> pl.DataFrame | None:
    """Read a file of objects that are spread over lines, or of one object around the table, as a whole.

    An interface's answer (`{"count": 2, "products": [...]}`) is the table that it holds.

    Returns:
        A row per object, or None where the file is no such text.
    """
    try:
        rows = _documents(read_bytes(path).decode())
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    if len(rows) == 1 and path.lower().endswith(_WHOLE):
        rows = _wrapped(rows[0]) or rows
    if not rows or not all(isinstance(row, dict) for row in rows):
        return None
    return pl.read_json(json.dumps(rows).encode(), infer_schema_length=None)
