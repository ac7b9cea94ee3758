"""The result of adapters, and steps that several of them share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.containers import unpacked
from features.files.readers import FILE, MALFORMED, ROW, RawTable, TextOptions, readable
from features.ingest.cleaning import string_id


class EventShape(Protocol):
    """Makes rows of the files into events, part by part."""

    def rows(self, events: RawTable) -> RawTable:
        """Return the events of a part of the files, as the adapter makes them of all of them."""


@dataclass(frozen=True)
class Sources:
    """Raw tables under contract names."""

    items: RawTable
    events: RawTable | None
    text_fields: tuple[str, ...] = ()
    """Text fields that suit this data set; `data.text_fields` overrides them."""
    dropped: dict[str, int] = field(default_factory=dict)
    """Rows that the adapter dropped on purpose, by reason."""
    recorded: RawTable | None = None
    """What servers recorded, `data.recorded`."""
    shape: EventShape | None = None
    """Makes events of parts of the files; None where the adapter has to read them as a whole."""


def text_options(config: DataConfig, table: str) -> TextOptions:
    """Return the configured format of the text files of `items` or `events`."""
    return TextOptions(header=table not in config.without_header, encoding=config.encoding)


def table_of(frame: pl.DataFrame, file: str, name: str) -> RawTable:
    """Wrap an adapter's own table, numbering its rows."""
    frame = frame.with_row_index(ROW, offset=1).with_columns(pl.lit(file).alias(FILE))
    return RawTable(frame.lazy(), False, name)


def drop_rows(
    frame: pl.DataFrame, tests: Iterable[tuple[str, pl.Expr]], dropped: dict[str, int]
) -> pl.DataFrame:
    """Drop rows test by test, adding the count of each to `dropped` (null tests drop none)."""
    for reason, test in tests:
        kept = frame.filter(~test.fill_null(False))
        if kept.height < frame.height:
            dropped[reason] = dropped.get(reason, 0) + frame.height - kept.height
        frame = kept
    return frame


def drop_counted(
    frame: pl.LazyFrame, test: pl.Expr, reason: str, dropped: dict[str, int] | None
) -> pl.LazyFrame:
    """Drop rows and count them, unless `dropped` is None."""
    test = test.fill_null(False)
    if dropped is None:
        return frame.filter(~test)
    count = int(frame.select(test.sum()).collect(engine="streaming").item())
    if count:
        dropped[reason] = count
    return frame.filter(~test)


def sentence_case(text: pl.Expr) -> pl.Expr:
    """`DAD'S 250G BAG` -> `Dad's 250g bag`: cased encoders are poor on capitals."""
    folded = text.str.replace_all(r"\s+", " ").str.strip_chars()
    return folded.str.slice(0, 1).str.to_uppercase() + folded.str.slice(1).str.to_lowercase()


def first_present(table: RawTable, name: str, alternatives: tuple[str, ...]) -> RawTable:
    """Rename the first of several known columns to its contract name, if any."""
    columns = table.columns
    found = next((c for c in (name, *alternatives) if c in columns), name)
    if found == name:
        return table
    return replace(table, frame=table.frame.rename({found: name}))


def in_file_order(events: RawTable) -> RawTable:
    """Return a table of events whose `order` is the row's number among those of all files, from 1.

    Raises:
        InputError: the table has an `order` or times of its own.
    """
    for name in (schema.ORDER, schema.TIMESTAMP):
        if name in events.columns:
            raise InputError(
                f"{events.name}: it has a column '{name}', which says in which order events happened; leave "
                "data.file_order out"
            )
    return replace(events, frame=events.frame.with_row_index(schema.ORDER, offset=1))


def refuse_paths(adapter: str, settings: dict[str, object]) -> None:
    """Refuse settings that an adapter would ignore.

    Raises:
        InputError: naming the setting to leave out.
    """
    for setting, value in settings.items():
        if value:
            raise InputError(f"data.adapter={adapter} does not use {setting}; leave it empty")


def ids_of(events: RawTable) -> pl.DataFrame:
    """Return every item id of an events table, in ascending order, as a catalogue of ids alone."""
    dtype = events.frame.collect_schema()[schema.ITEM_ID]
    ids = string_id(schema.ITEM_ID, dtype).alias(schema.ITEM_ID)
    with readable(events.name):
        found = events.frame.select(ids).unique().drop_nulls().collect(engine="streaming")
    return found.sort(schema.ITEM_ID)


def first_line(path: str) -> str:
    """Return the first line of a text file without its end."""
    with Path(unpacked(path)).open(encoding="utf-8", errors="replace") as file:
        return file.readline().rstrip("\r\n")


def scan_headerless(path: str, names: Sequence[str], separator: str) -> pl.LazyFrame:
    """Scan an unquoted text file without a header, every column a string; rows are numbered from 1."""
    frame = pl.scan_csv(
        unpacked(path),
        has_header=False,
        separator=separator,
        quote_char=None,
        schema=dict.fromkeys(names, pl.String),
        truncate_ragged_lines=True,
        row_index_name=ROW,
        row_index_offset=1,
    )
    return frame.with_columns(pl.lit(path).alias(FILE), pl.lit(None, dtype=pl.String).alias(MALFORMED))
