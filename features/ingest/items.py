"""The items table: from raw rows to a catalogue with rendered text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import BOOKKEEPING, FILE, MALFORMED, ROW, RawTable, readable
from features.ingest import rejects as why
from features.ingest.cleaning import (
    NOT_AVAILABLE,
    id_of,
    infer_types,
    null_placeholder_columns,
    placeholders,
    placeholders_to_null,
    plain_attributes,
    present,
    shortened,
)
from features.ingest.duplicates import inherit, without_an_id
from features.ingest.duplicates import repeats as repeated
from features.ingest.footers import footer_rows
from features.ingest.id_lists import list_hint
from features.ingest.nested import require_flat
from features.ingest.samples import ROWS, ColumnSample, samples
from features.ingest.suspicions import suspicious_items
from features.text.item_text import TextTemplate, clean_text, render_catalogue
from features.text.text_fields import choose_text_fields, is_id_name, strings_of, why_uninformative
from features.text.titles import title_column
from features.values.attribute_types import with_types
from features.values.numbers import number, sign_of
from features.values.times import time_style, unix_seconds

_FORMAT_AS_TEXT = (
    " (a spreadsheet has written a long number as 4.01234E+12, and its last digits are not in the file; "
    "format the column as text or as a whole number there and export it again)"
)


@dataclass(frozen=True)
class ItemTable:
    """The validated catalogue."""

    frame: pl.DataFrame
    """item_id, text, then every other column; unique ids in the order of the files."""
    rejects: pl.DataFrame
    rows: int
    """Rows read."""
    template: TextTemplate
    with_text: pl.Series
    """Whether an item has one of its text fields, [items] bools."""
    warnings: dict[str, int]
    """Values that became null while their row stayed, by reason."""
    columns_not_read: dict[str, str]
    """Text columns that are not in the item text, and the type of their values."""
    sample: list[ColumnSample]
    columns_left_out: list[str]
    """Columns of types other than string, number, bool or list of strings."""
    suspicious: list[str]
    """Suspicious but readable findings, one line each."""


def _contract_types(
    frame: pl.DataFrame, config: DataConfig, table: RawTable, text_fields: Sequence[str]
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Parse the contract's columns, infer the types of others, and count unreadable values."""
    readings: dict[str, pl.Expr] = {}
    where = table.name
    if schema.PRICE in frame.columns:
        sign = sign_of(frame.lazy(), schema.PRICE, config.decimal)
        price = number(schema.PRICE, frame.schema[schema.PRICE], sign)
        readings[schema.PRICE] = pl.when(price >= 0).then(price)
    if schema.CREATED_AT in frame.columns:
        style = time_style(frame.lazy(), schema.CREATED_AT, config.timestamp_format, where)
        readings[schema.CREATED_AT] = unix_seconds(schema.CREATED_AT, frame.schema[schema.CREATED_AT], style)
    typed = frame.with_columns(reading.alias(name) for name, reading in readings.items())
    warnings = {}
    for name in readings:
        given = frame.select(present(name, frame.schema[name])).to_series()
        unreadable = given & typed[name].is_null()
        if bad := int(unreadable.sum()):
            examples = frame[name].filter(unreadable).head(3).to_list()
            why.check_readable(where, name, int(given.sum()), bad, examples)
            warnings[f"bad {name}"] = bad
    if table.untyped:
        ids = {c for c in typed.columns if is_id_name(c)}
        typed = infer_types(typed, {schema.ITEM_ID, *BOOKKEEPING, *text_fields, *ids, *config.types})
    return typed, warnings


def _footer_rows(raw: pl.DataFrame, as_written: bool) -> pl.Series:
    """Return which rows of an untyped table are totals and notes, [rows] bools."""
    if as_written and raw.schema[schema.ITEM_ID] == pl.String:
        return footer_rows(raw, title_column(raw.columns))
    return pl.Series([False]).new_from_index(0, raw.height)


def ingest_items(table: RawTable, config: DataConfig, text_fields: Sequence[str]) -> ItemTable:
    """Validate the items table and render every item's text.

    Args:
        table: raw rows under contract names, `item_id` among them.
        config: limits and the configured text fields.
        text_fields: text fields to take; empty chooses them.

    Raises:
        InputError: no rows, a reserved column, an unknown text field, or too many bad rows.
    """
    require_flat(table, (schema.ITEM_ID, schema.PRICE, schema.CREATED_AT), "items")
    if schema.TEXT in table.columns:
        raise InputError(
            f"{table.name}: the name '{schema.TEXT}' is taken by the rendered text; "
            f"give the column another one, e.g. data.columns='{{items.description: {schema.TEXT}}}'"
        )
    with readable(table.name):
        raw = table.frame.collect(engine="streaming")
    if raw.is_empty():
        raise InputError(f"{table.name}: no data rows")
    if MALFORMED not in raw.columns:
        raw = raw.with_columns(pl.lit(None, dtype=pl.String).alias(MALFORMED))
    written = raw
    others = [c for c in raw.columns if c not in (schema.ITEM_ID, *BOOKKEEPING)]
    below = _footer_rows(raw, table.untyped and not config.properties)
    spoiled = below | raw[MALFORMED].is_not_null()
    if spoiled.any():  # values of such rows are ignored in type inference
        raw = raw.with_columns(pl.when(~spoiled).then(c).alias(c) for c in others)
    if config.parent is not None:
        raw = inherit(raw, config.parent, table.name)
    missing = placeholders(config.missing)
    raw = raw.with_columns(null_placeholder_columns(raw.schema, others, missing))
    if config.missing is None:
        numbers = [c for c in (schema.PRICE, schema.CREATED_AT) if c in others]
        raw = raw.with_columns(null_placeholder_columns(raw.schema, numbers, [NOT_AVAILABLE]))
    raw = with_types(raw, config.types, config.decimal, table.name)
    typed, warnings = _contract_types(raw, config, table, text_fields)
    item_id = placeholders_to_null(id_of(raw.lazy(), schema.ITEM_ID), missing)
    typed = typed.with_columns(item_id.alias(schema.ITEM_ID))
    bad = typed.select(
        pl.when(pl.col(MALFORMED).is_not_null())
        .then(why.malformed(pl.col(MALFORMED)))
        .when(without_an_id(typed, config.parent))
        .then(pl.lit(why.NO_ITEM))
        .when(below)
        .then(pl.lit(why.BELOW))
        .when(raw.select(shortened(schema.ITEM_ID, raw.schema[schema.ITEM_ID])).to_series())
        .then(pl.lit(why.SHORTENED_ITEM))
        .when(pl.col(schema.ITEM_ID).str.len_chars() > schema.MAX_ID_CHARS)
        .then(pl.lit(why.LONG_ITEM))
        .when(pl.col(schema.ITEM_ID).is_null())
        .then(pl.lit(why.MISSING_ITEM))
        .alias(why.REASON)
    ).to_series()
    good = bad.is_null()
    plain, left_out = plain_attributes(typed.drop(MALFORMED))
    repeats = repeated(plain.filter(good), raw.filter(good), config.duplicates, table.name)
    rejected = pl.concat(
        [typed.with_columns(bad).filter(~good), typed.filter(good).with_columns(repeats.alias(why.REASON))]
    )
    rejected = (
        rejected.filter(pl.col(why.REASON).is_not_null())
        .sort(FILE, ROW)
        .select(why.reject_columns("items", pl.col(why.REASON), {schema.ITEM_ID: pl.col(schema.ITEM_ID)}))
    )
    hint = _FORMAT_AS_TEXT if why.SHORTENED_ITEM in rejected[why.REASON] else ""
    why.check_fraction(rejected, raw.height, config.reject_limit("items"), table.name, hint)
    odd = suspicious_items(raw)
    if config.items == config.events and (hint := list_hint(plain[schema.ITEM_ID], None, config)):
        odd.append(hint)
    kept = repeats.is_null()
    items = plain.filter(good).filter(kept).drop(FILE, ROW)
    if items.is_empty():
        raise InputError(f"{table.name}: none of {raw.height:,} rows is a usable item")
    title = title_column(items.columns)
    if title is not None and items.schema[title] == pl.String:
        items = items.with_columns(clean_text(items[title]).alias(title))  # the title that serving shows
    fields, fallback = choose_text_fields(items, text_fields, table.name)
    template = TextTemplate(tuple(fields), tuple(fallback), config.max_text_chars)
    text, with_text = render_catalogue(items, template)
    frame = items.with_columns(text).select(
        schema.ITEM_ID, schema.TEXT, pl.exclude(schema.ITEM_ID, schema.TEXT)
    )
    empty = {c: items[c].null_count() / items.height for c in items.columns}
    sample = samples(written.filter(good).filter(kept).head(ROWS), items.head(ROWS), empty)
    others = [c for c in strings_of(items) if c not in (*fields, *fallback)]
    unread = {c: why_not for c in others if (why_not := why_uninformative(c, items[c]))}
    return ItemTable(
        frame, rejected, raw.height, template, with_text, warnings, unread, sample, left_out, odd
    )
