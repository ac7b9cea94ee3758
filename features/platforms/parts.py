"""Shared steps of the platforms' readers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import BOOKKEEPING, RawTable
from features.ingest.cleaning import string_id
from features.ingest.columns import map_columns, sources_of
from features.ingest.raw_tables import Sources

LINE_ID, LINE_NAME = "__line_id", "__line_name"
"""An order line's item: the platform's id, and the displayed title."""

VOID = "__void"
"""Whether a line belongs to a cancelled or unpaid order."""


class Columns:
    """The columns of one file, whose names have several spellings."""

    def __init__(self, table: RawTable) -> None:
        """Index the columns of a table."""
        self._table = table
        self._names = {name.casefold().strip(): name for name in table.columns}
        self._types = table.frame.collect_schema()

    def find(self, *spellings: str) -> list[str]:
        """Return the columns that match any of several spellings, in their order, ignoring case."""
        return [self._names[s.casefold()] for s in spellings if s.casefold() in self._names]

    def value(self, *spellings: str) -> pl.Expr:
        """Return the first non-blank value of several columns as text; null where the file has none."""
        given = [string_id(name, self._types[name]) for name in self.find(*spellings)]
        return pl.coalesce(given) if given else pl.lit(None, dtype=pl.String)

    def require(self, platform: str, export: str, *spellings: str) -> None:
        """Check that the file has a column of one of several spellings.

        Raises:
            InputError: it has none, so the export is of another kind.
        """
        if not self.find(*spellings):
            have = ", ".join(self._table.columns[:12])
            raise InputError(
                f"{self._table.name}: no column '{spellings[0]}', so it is no {export} of {platform} "
                f"(columns: {have}, ...). Any other table is read by data=files; `shelfwise inspect` says how"
            )


def first_over(value: pl.Expr, group: pl.Expr) -> pl.Expr:
    """Fill a value that a file has once per group: a row's own, else the group's first."""
    return pl.coalesce(value, value.drop_nulls().first().over(group))


def flag(value: pl.Expr) -> pl.Expr:
    """Parse 1/0, true/false and yes/no as a bool; anything else is null."""
    lower = value.str.to_lowercase()
    return (
        pl.when(lower.is_in(["1", "true", "yes", "in stock", "in_stock"]))
        .then(True)
        .when(lower.is_in(["0", "false", "no", "out of stock", "out_of_stock"]))
        .then(False)
    )


def named_values(
    columns: Columns, names: Sequence[str], values: Sequence[str], ignored: Collection[str]
) -> pl.Expr:
    """Format pairs of name and value columns as text, `Colour: red, Size: M`, without ignored values."""
    parts = []
    for name, value in zip(names, values, strict=True):
        written = columns.value(value)
        known = written.is_not_null() & ~written.is_in(list(ignored))
        label = columns.value(name)
        shown = pl.when(label.is_null()).then(written).otherwise(pl.format("{}: {}", label, written))
        parts.append(pl.when(known).then(shown))
    text = pl.concat_list(parts).list.drop_nulls().list.join(", ")
    return pl.when(text != "").then(text)


def join_item_ids(events: pl.LazyFrame, items: pl.DataFrame) -> pl.LazyFrame:
    """Add item ids to order lines: their own, or that of the only item with their name.

    Orders of shops without SKUs have names alone.

    Args:
        events: lines with `LINE_ID` and `LINE_NAME`.
        items: item_id and `LINE_NAME`.
    """
    unique = items.filter(pl.col(LINE_NAME).is_not_null() & pl.col(LINE_NAME).is_unique())
    by_name = unique.select(LINE_NAME, pl.col(schema.ITEM_ID).alias("__by_name")).lazy()
    known = items.select(pl.col(schema.ITEM_ID).alias(LINE_ID), pl.lit(True).alias("__known")).unique().lazy()
    joined = events.join(by_name, on=LINE_NAME, how="left", maintain_order="left")
    joined = joined.join(known, on=LINE_ID, how="left", maintain_order="left")
    own = pl.when(pl.col("__known")).then(LINE_ID)
    item = pl.coalesce(own, "__by_name", LINE_ID, LINE_NAME).alias(schema.ITEM_ID)
    return joined.with_columns(item).drop("__by_name", "__known")


def select_once(table: RawTable, made: Mapping[str, pl.Expr], config: DataConfig) -> pl.LazyFrame:
    """Compute columns of a table once, and add the file's columns that `data.columns` names.

    Later steps read the lines several times, and values in an order's first row need a pass over all of them.
    """
    named = {name for key, source in config.columns.items() for name in sources_of(source, key)}
    have = table.frame.collect_schema().names()
    kept = [c for c in have if c not in made and (c in BOOKKEEPING or c in named)]
    return table.frame.select(*kept, **made).collect(engine="streaming").lazy()


def finish(
    config: DataConfig,
    items: RawTable,
    events: RawTable | None,
    raw: tuple[Collection[str], Collection[str]],
    text_fields: Sequence[str],
    dropped: dict[str, int],
) -> Sources:
    """Apply `data.columns`, keeping the reader's columns and those that a setting names.

    Args:
        config: the settings.
        items: the catalogue, with the file's own columns.
        events: the same of the order lines or events, or None.
        raw: the file's own columns of items and of events.
        text_fields: the platform's text fields; empty ones are dropped.
        dropped: rows dropped on purpose, by reason.
    """
    mapped_items, mapped_events = map_columns(items, events, config.columns)
    assert mapped_items is not None
    named = {*config.text_fields, *config.columns, *(key.partition(".")[2] for key in config.columns)}
    mapped_items = _without(mapped_items, set(raw[0]) - named)
    if mapped_events is not None:
        mapped_events = _without(mapped_events, set(raw[1]) - named)
    have = mapped_items.frame.select(
        pl.col(name).is_not_null().any() for name in text_fields if name in mapped_items.columns
    )
    filled = have.collect(engine="streaming").row(0, named=True)
    return Sources(mapped_items, mapped_events, tuple(n for n in text_fields if filled.get(n)), dropped)


def _without(table: RawTable, names: Collection[str]) -> RawTable:
    kept = [c for c in table.frame.collect_schema().names() if c in BOOKKEEPING or c not in names]
    return replace(table, frame=table.frame.select(kept))
