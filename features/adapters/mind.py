"""MIND, Microsoft's news data: news.tsv and behaviors.tsv, tabs, no header, no quoting.

Each line of behaviors.tsv is a list that was shown, with its clicks, and the user's clicks before the data
begins. These come first and have no times; later clicks follow by time. Items shown and not clicked are
`impression` events.
"""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from conf.errors import InputError
from conf.schema import DataConfig
from features.data import schema
from features.files.readers import FILE, MALFORMED, ROW, RawTable, readable, resolve_paths
from features.ingest.raw_tables import Sources, first_line, refuse_paths, scan_headerless

_NEWS = (
    schema.ITEM_ID, "category", "subcategory", "title", "abstract", "url", "title_entities",
    "abstract_entities",
)  # fmt: skip
_BEHAVIOURS = ("session_id", schema.USER_ID, "time", "history", "shown")
_TEXTS = ("title", "subcategory", "category", "abstract")
_TIME = "%m/%d/%Y %I:%M:%S %p"


def _scan(source: object, setting: str, names: Sequence[str], example: str) -> RawTable:
    paths = resolve_paths(source, setting)
    for path in paths:
        fields = first_line(path).count("\t") + 1
        if fields != len(names):
            raise InputError(f"{setting}: {path}: expected {len(names)} fields ({example}), not {fields}")
    frame = pl.concat([scan_headerless(path, names, "\t") for path in paths])
    return RawTable(frame, True, f"{setting} ({', '.join(paths)})")


def _events(lists: pl.LazyFrame) -> pl.LazyFrame:
    """Return user_id, item_id, event, timestamp, order, session_id and list_position.

    `order` numbers the clicks before the data as -n .. -1 and is the Unix second of later events, so that one
    column orders all events of a user.
    """
    at = pl.col("time").str.to_datetime(_TIME, strict=False).dt.epoch("s")
    lists = lists.with_columns(at.alias(schema.TIMESTAMP))
    key = (FILE, ROW, MALFORMED, schema.USER_ID)
    # A user's history is the same in every list of a file; that of the earliest list is taken.
    past = lists.filter(pl.col("history").is_not_null())
    past = past.sort(schema.TIMESTAMP, maintain_order=True).unique(
        schema.USER_ID, keep="first", maintain_order=True
    )
    clicks = pl.col("history").str.split(" ")
    numbers = pl.int_ranges(-clicks.list.len().cast(pl.Int64), 0)
    before = past.select(*key, clicks.alias(schema.ITEM_ID), numbers.alias(schema.ORDER)).explode(
        schema.ITEM_ID, schema.ORDER, empty_as_null=True, keep_nulls=True
    )
    shown = pl.col("shown").str.split(" ")
    later = lists.select(
        *key,
        "session_id",
        schema.TIMESTAMP,
        pl.col(schema.TIMESTAMP).alias(schema.ORDER),
        shown.alias("shown"),
        pl.int_ranges(1, shown.list.len().cast(pl.Int64) + 1).alias("list_position"),
    ).explode("shown", "list_position", empty_as_null=True, keep_nulls=True)
    parts = pl.col("shown").str.extract_groups(r"^(.+)-([01])$")
    later = later.with_columns(
        parts.struct.field("1").alias(schema.ITEM_ID), parts.struct.field("2").alias("clicked")
    )
    kind = pl.when(pl.col("clicked") == "1").then(pl.lit("click")).otherwise(pl.lit("impression"))
    later = later.select(pl.exclude("shown", "clicked"), kind.alias(schema.EVENT))
    return pl.concat([before.with_columns(pl.lit("click").alias(schema.EVENT)), later], how="diagonal")


def read_mind(config: DataConfig) -> Sources:
    """Read news, and the clicks and impressions of the lists.

    Raises:
        InputError: missing files, or files with other fields.
    """
    refuse_paths("mind", {"data.columns": config.columns})
    if config.items is None or config.events is None:
        raise InputError("data.adapter=mind: set data.items=news.tsv and data.events=behaviors.tsv")
    news = _scan(config.items, "data.items", _NEWS, "news.tsv: id, category, ..., title, abstract, url, ...")
    lists = _scan(config.events, "data.events", _BEHAVIOURS, "behaviors.tsv: id, user, time, history, list")
    with readable(news.name):
        frame = news.frame.drop("title_entities", "abstract_entities")
        # News can be in several parts of the data (train, dev).
        frame = frame.unique(schema.ITEM_ID, keep="first", maintain_order=True)
    return Sources(RawTable(frame, True, news.name), RawTable(_events(lists.frame), True, lists.name), _TEXTS)
