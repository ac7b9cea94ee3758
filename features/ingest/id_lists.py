"""Several item ids in one cell of the events (`S-1|S-2`, `["S-1", "S-2"]`): found, and made an event each."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from conf.overrides import override
from conf.tables import Adapter, DataConfig
from features.data import schema
from features.files.readers import RawTable
from features.values.attribute_types import elements

KEY = f"events.{schema.ITEM_ID}"
"""The key of `data.types` under which `list` makes an event of every id in a cell."""
SETTING = override("data.types", {KEY: "list"})
ADAPTERS = (Adapter.files, Adapter.merchant_feed)
"""What reads any table of events, and knows the setting."""
_ARRAY = "[]"
_LISTED = r"^\s*\[.*,.*\]\s*$"
_SEPARATORS = ("|", ";", ",", " ")
_CODE = r"^\S*\d\S*$"
_SAMPLE = 100_000
_MOST = 0.5
"""Share of the cells with a separator of which all parts have to be ids."""


def _parts(cell: pl.Expr, separator: str) -> pl.Expr:
    """Divide cells into ids without blanks around them; a blank cell is an empty list."""
    if separator == _ARRAY:
        return elements(cell)
    parts = cell.str.split(separator).list.eval(pl.element().str.strip_chars())
    return parts.list.eval(pl.element().filter(pl.element() != ""))


def _divided(cells: pl.Series, separator: str) -> pl.DataFrame:
    """Return the parts of the cells that a separator divides, `at` (the cell's number) and `part`."""
    array = separator == _ARRAY
    has = pl.col("cell").str.contains(_LISTED if array else separator, literal=not array)
    lists = cells.to_frame("cell").filter(has).select(_parts(pl.col("cell"), separator).alias("part"))
    return lists.with_row_index("at").filter(pl.col("part").list.len() > 1).explode("part")


def _made_of_ids(parts: pl.DataFrame, known: pl.Series) -> bool:
    """Whether most divided cells are made of known ids alone."""
    cells = parts.group_by("at").agg(pl.col("part").is_in(known.implode()).all())["part"]
    return int(cells.sum()) > _MOST * len(cells)


def separator_of(cells: pl.Series, known: pl.Series | None = None) -> str | None:
    """Return what divides the ids in cells that hold several, or None where they hold no more than one.

    Args:
        cells: different values of a column, as text.
        known: ids of the catalogue, of which most divided cells have to be made. Without a catalogue ids are
            codes, and known where they stand alone or in several cells.
    """
    cells = cells.drop_nulls()
    for separator in (_ARRAY, *_SEPARATORS):
        parts = _divided(cells, separator)
        if parts.is_empty():
            continue
        ids = known
        if ids is None:
            if separator == " " or not parts["part"].str.contains(_CODE).all():
                continue
            shared = parts.group_by("part").agg(pl.col("at").n_unique()).filter(pl.col("at") > 1)["part"]
            ids = pl.concat([cells, shared])
        if _made_of_ids(parts, ids):
            return separator
    return None


def ids_in(cells: pl.Series, separator: str) -> pl.Series:
    """Return the ids in cells, one after another."""
    return cells.to_frame("cell").select(_parts(pl.col("cell"), separator).explode()).to_series().drop_nulls()


def _used(table: RawTable) -> str | None:
    """Return what divides the ids of a column that is said to hold several, or None where nothing does."""
    column = pl.col(schema.ITEM_ID)
    first = table.frame.select(column.str.strip_chars()).head(_SAMPLE).collect(engine="streaming").to_series()
    first = first.filter(first != "")
    if len(first) and first.str.contains(r"^\[.*\]$").all():
        return _ARRAY
    return next((s for s in _SEPARATORS if first.str.contains(s, literal=True).any()), None)


def rows_of_ids(table: RawTable, config: DataConfig) -> RawTable:
    """Make a row of every id in a cell of `item_id`, where `data.types` says that cells hold lists.

    The separator is the first of `|`, `;`, comma and blank that the first 100,000 rows use; blank cells stay.
    """
    types = table.frame.collect_schema()
    if config.types.get(KEY) != "list" or types.get(schema.ITEM_ID) != pl.String:
        return table
    separator = _used(table)
    if separator is None:
        return table
    listed = table.frame.with_columns(_parts(pl.col(schema.ITEM_ID), separator))
    return replace(table, frame=listed.explode(schema.ITEM_ID, empty_as_null=True, keep_nulls=True))


def items_of_lists(items: RawTable, config: DataConfig) -> RawTable:
    """Make an item of every id in a cell of a log that is both tables, each of them once."""
    listed = rows_of_ids(items, config)
    if listed is items:
        return items
    return replace(listed, frame=listed.frame.unique(schema.ITEM_ID, keep="first", maintain_order=True))


def said_of(cells: pl.Series, known: pl.Series | None, config: DataConfig) -> str:
    """Say that cells hold several ids and which setting divides them, or return an empty string.

    Args:
        cells: values of `item_id` that are no ids of the catalogue.
        known: ids of the catalogue; None where there is none.
        config: the settings.
    """
    if config.adapter not in ADAPTERS:
        return ""
    separator = separator_of(cells.unique(maintain_order=True).head(_SAMPLE), known)
    if separator is None:
        return ""
    example = next(cell for cell in cells if len(ids_in(pl.Series([cell]), separator)) > 1)
    return f"item_id holds several ids, e.g. '{example}': {SETTING} makes an event of each"
