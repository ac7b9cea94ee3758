"""Several item ids in one cell of the events (`S-1|S-2`, `["S-1", "S-2"]`): detection and splitting."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from conf.composition.overrides import override
from conf.tables import Adapter, DataConfig
from features.data import schema
from features.files.readers import RawTable
from features.ingest.nested import spread
from features.values.attribute_types import elements

KEY = f"events.{schema.ITEM_ID}"
"""Key of `data.types`: the value `list` splits cells into an event per id."""
SETTING = override("data.types", {KEY: "list"})
ADAPTERS = (Adapter.files, Adapter.merchant_feed)
"""Adapters of arbitrary event tables, which support the setting."""
PARALLEL = ("quantity", "value")
"""Columns that may hold a value for every id in a cell."""
_ARRAY = "[]"
_LISTED = r"^\s*\[.*,.*\]\s*$"
_SEPARATORS = ("|", ";", ",", " ")
_CODE = r"^\S*\d\S*$"
_SAMPLE = 100_000
_MOST = 0.5
"""Least share of divided cells whose parts are all ids."""


def _parts(cell: pl.Expr, separator: str) -> pl.Expr:
    """Split cells into ids without surrounding blanks; a blank cell is an empty list."""
    if separator == _ARRAY:
        return elements(cell)
    parts = cell.str.split(separator).list.eval(pl.element().str.strip_chars())
    return parts.list.eval(pl.element().filter(pl.element() != ""))


def _divided(cells: pl.Series, separator: str) -> pl.DataFrame:
    """Return the parts of the cells that contain a separator, `at` (the cell's number) and `part`."""
    array = separator == _ARRAY
    has = pl.col("cell").str.contains(_LISTED if array else separator, literal=not array)
    lists = cells.to_frame("cell").filter(has).select(_parts(pl.col("cell"), separator).alias("part"))
    return lists.with_row_index("at").filter(pl.col("part").list.len() > 1).explode("part")


def _all_ids(parts: pl.DataFrame, known: pl.Series) -> bool:
    """Return whether most divided cells consist of known ids."""
    cells = parts.group_by("at").agg(pl.col("part").is_in(known.implode()).all())["part"]
    return int(cells.sum()) > _MOST * len(cells)


def separator_of(cells: pl.Series, known: pl.Series | None = None) -> str | None:
    """Return the separator of cells with several ids, or None if each has one.

    Args:
        cells: distinct values of a column, as text.
        known: ids of the catalogue, of which most divided cells must consist. Without a catalogue ids are
            codes that also occur alone or in several cells.
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
        if _all_ids(parts, ids):
            return separator
    return None


def ids_in(cells: pl.Series, separator: str) -> pl.Series:
    """Return the ids in cells, concatenated."""
    return cells.to_frame("cell").select(_parts(pl.col("cell"), separator).explode()).to_series().drop_nulls()


def _used(table: RawTable) -> str | None:
    """Return the separator of a column declared as lists, or None."""
    column = pl.col(schema.ITEM_ID)
    first = table.frame.select(column.str.strip_chars()).head(_SAMPLE).collect(engine="streaming").to_series()
    first = first.filter(first != "")
    if len(first) and first.str.contains(r"^\[.*\]$").all():
        return _ARRAY
    return next((s for s in _SEPARATORS if first.str.contains(s, literal=True).any()), None)


def separator_in(table: RawTable, config: DataConfig) -> str | None:
    """Return the separator of ids in a cell of `item_id`, where `data.types` says that cells hold lists.

    It is the first of `|`, `;`, comma and blank that the first 100,000 rows use; None if every cell has one
    id.
    """
    if config.types.get(KEY) != "list" or table.frame.collect_schema().get(schema.ITEM_ID) != pl.String:
        return None
    return _used(table)


def rows_of_ids(table: RawTable, separator: str | None, dropped: dict[str, int] | None) -> RawTable:
    """Make a row of every id in a cell of `item_id`; blank cells stay.

    A quantity and a value are divided like the ids; where they are not as many, the rows have none.

    Args:
        table: the events.
        separator: of the ids; None leaves the table as it is.
        dropped: takes how many quantities and values were not divided, by what they are; None counts none.
    """
    if separator is None:
        return table
    types = table.frame.collect_schema()
    ids = _parts(pl.col(schema.ITEM_ID), separator)
    size = ids.list.len().fill_null(0)
    parts = {c: _parts(pl.col(c), separator) for c in PARALLEL if types.get(c) == pl.String}
    for name, lists in parts.items() if dropped is not None else ():
        whole = (size > 1) & (lists.list.len() > 0) & (lists.list.len() != size)
        drop = int(table.frame.select(whole.sum()).collect(engine="streaming").item())
        if drop and dropped is not None:
            dropped[f"{name} of a row with several ids, not one for each"] = drop
    nothing = pl.concat_list(pl.lit(None, dtype=pl.String))
    beside = {
        c: pl.when(pl.col(schema.ITEM_ID).list.len() == 1).then(pl.concat_list(c)).otherwise(lists)
        for c, lists in parts.items()
    }
    listed = table.frame.with_columns(pl.when(size > 0).then(ids).otherwise(nothing).alias(schema.ITEM_ID))
    return replace(table, frame=spread(listed, schema.ITEM_ID, beside))


def items_of_lists(items: RawTable, config: DataConfig) -> RawTable:
    """Make an item of every distinct id in the cells of a log that is both tables."""
    listed = rows_of_ids(items, separator_in(items, config), None)
    if listed is items:
        return items
    return replace(listed, frame=listed.frame.unique(schema.ITEM_ID, keep="first", maintain_order=True))


def list_hint(cells: pl.Series, known: pl.Series | None, config: DataConfig) -> str:
    """Return a hint that cells hold several ids, with the setting that splits them, or an empty string.

    Args:
        cells: values of `item_id` that are not in the catalogue.
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
