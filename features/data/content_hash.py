"""A hash of the content of tables, independent of the file format."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from hashlib import _Hash

_BLOCK = 1_000_000
"""Rows hashed at a time."""


def _feed(digest: _Hash, values: pl.Series) -> None:
    """Add nulls, lengths and values of one column to the digest, in little-endian bytes."""
    digest.update(values.is_null().cast(pl.UInt8).to_numpy().tobytes())
    if isinstance(values.dtype, pl.List):
        digest.update(values.list.len().fill_null(0).cast(pl.Int64).to_numpy().tobytes())
        _feed(digest, values.drop_nulls().explode(empty_as_null=False, keep_nulls=True))
    elif values.dtype == pl.String:
        filled = values.fill_null("")
        digest.update(filled.str.len_bytes().cast(pl.Int64).to_numpy().tobytes())
        digest.update("".join(filled.to_list()).encode())
    elif values.dtype == pl.Boolean:
        digest.update(values.fill_null(False).cast(pl.UInt8).to_numpy().tobytes())
    else:
        digest.update(values.fill_null(0).to_numpy().tobytes())


def content_hash(tables: Iterable[pl.LazyFrame]) -> str:
    """Hash names, types and values of tables in row order, column by column in blocks of rows.

    Args:
        tables: scans of tables whose columns are strings, numbers, bools or lists of strings.

    Returns:
        SHA-256 as 64 hex digits; equal content has equal hashes whatever the compression or row groups.
    """
    digest = hashlib.sha256()
    for table in tables:
        rows = int(table.select(pl.len()).collect(engine="streaming").item())
        digest.update(f"table of {rows} rows\n".encode())
        for name, dtype in table.collect_schema().items():
            digest.update(f"{len(name)}:{name}:{dtype}\n".encode())
            for start in range(0, rows, _BLOCK):
                block = table.select(name).slice(start, _BLOCK).collect(engine="streaming")
                _feed(digest, block.to_series())
    return digest.hexdigest()
