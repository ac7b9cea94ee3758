"""Samples of raw and parsed values side by side, for display."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl
from rich.table import Table

from features.data import schema
from features.text.titles import shortened

ROWS = 3
"""Values shown per column."""
_CHARS = 24
_TIMES = (schema.TIMESTAMP, schema.CREATED_AT)


@dataclass(frozen=True)
class ColumnSample:
    """The first values of a column."""

    name: str
    written: tuple[str, ...]
    read: tuple[str, ...]
    empty: float
    """Share of the rows without a value."""


def _shown(values: pl.Series) -> tuple[str, ...]:
    return tuple(shortened("" if v is None else str(v), _CHARS) for v in values.to_list())


def samples(
    written: pl.DataFrame, read: pl.DataFrame, empty: dict[str, float], hidden: Collection[str] = ()
) -> list[ColumnSample]:
    """Return samples of raw and parsed columns.

    Args:
        written: the first rows, raw.
        read: the same rows, parsed; its columns are shown.
        empty: column -> share of all rows without a value.
        hidden: columns whose raw values are not shown.
    """
    return [
        ColumnSample(
            name,
            _shown(written[name]) if name in written.columns and name not in hidden else (),
            _shown(_dated(read[name])),
            empty.get(name, 0.0),
        )
        for name in read.columns
    ]


def _dated(column: pl.Series) -> pl.Series:
    """Format Unix seconds as times."""
    if column.name not in _TIMES or not column.dtype.is_integer():
        return column
    return pl.from_epoch(column).dt.strftime("%Y-%m-%d %H:%M:%S")


def sample_table(table: str, columns: list[ColumnSample]) -> Table:
    """Return a sample as a table for the terminal."""
    shown = Table(title=f"{table} as they were read", title_justify="left")
    for header in ("column", "in the file", "read as"):
        shown.add_column(header, overflow="fold")
    shown.add_column("empty", justify="right")
    for column in columns:
        shown.add_row(column.name, " | ".join(column.written), " | ".join(column.read), f"{column.empty:.0%}")
    return shown
