"""Rows that share an item: which one is kept, inheritance of variants, and conflicts that stop ingestion."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from conf.composition.overrides import override
from conf.errors import InputError, closest
from conf.tables import Duplicates
from features.data import schema
from features.files.readers import BOOKKEEPING, FILE, ROW
from features.ingest import rejects as why
from features.ingest.cleaning import present, string_id
from features.values.times import unix_seconds

_AT = "__at"
_KEPT = "__kept"
_TIMES = (schema.UPDATED_AT, schema.CREATED_AT)
"""Columns by which the newest row is determined, in order of preference."""
_MOST = 0.05
"""Share of conflicting rows above which the column is taken for no id."""
_FEW = 3
"""Number of conflicts that are allowed whatever their share."""
_SHOWN_CHARS = 40
_NARROW = 4
"""Most columns of a table of properties, beside the id."""


def _filled(name: str, dtype: pl.DataType) -> pl.Expr:
    return pl.when(present(name, dtype)).then(pl.col(name))


def inherit(frame: pl.DataFrame, parent: str, where: str) -> pl.DataFrame:
    """Fill the missing values of variants from the main row of their product.

    The main row is the one whose item id is the product (`id:17` counts as `17`, WooCommerce's format), else
    the first with that product.

    Args:
        frame: raw rows with `item_id`.
        parent: the column that names the product, `data.parent`.
        where: the table's name in messages.

    Raises:
        InputError: no such column.
    """
    if parent not in frame.columns:
        known = [c for c in frame.columns if c not in BOOKKEEPING]
        raise InputError(
            f"data.parent: no column '{parent}' in {where}{closest(parent, known) or '.'} "
            f"Columns: {', '.join(known)}"
        )
    types = frame.schema
    item = string_id(schema.ITEM_ID, types[schema.ITEM_ID])
    named = string_id(parent, types[parent]).str.strip_prefix("id:")
    family = pl.coalesce(named, item).alias("__family")
    keyed = frame.with_row_index(_AT).with_columns(
        family, (item == named).fill_null(named.is_null()).alias("__main")
    )
    own = [c for c in frame.columns if c not in (*BOOKKEEPING, schema.ITEM_ID, parent)]
    first = keyed.sort("__family", pl.col("__main").not_(), _AT).group_by("__family", maintain_order=True)
    main = first.agg(_filled(c, types[c]).first() for c in own)
    joined = keyed.join(main, on="__family", how="left", maintain_order="left", suffix="__of_product")
    taken = [
        pl.when(pl.col("__family").is_null()).then(pl.col(c)).otherwise(
            pl.coalesce(_filled(c, types[c]), f"{c}__of_product")
        ).alias(c)
        for c in own
    ]  # fmt: skip
    return joined.with_columns(taken).select(frame.columns)


def without_an_id(frame: pl.DataFrame, parent: str | None) -> pl.Series:
    """Return which rows without `item_id` supplement a product that has rows with one, [rows] bools.

    Args:
        frame: rows with parsed `item_id`.
        parent: `data.parent`; without it no row is one of these.
    """
    if parent is None:
        return pl.Series([False]).new_from_index(0, frame.height)
    has = pl.col(schema.ITEM_ID).is_not_null()
    return frame.select(~has & has.any().over(parent) & pl.col(parent).is_not_null()).to_series()


def _preference(frame: pl.DataFrame, raw: pl.DataFrame, how: Duplicates | None, where: str) -> pl.Expr:
    """Return the sort key of an item's rows; the smallest is kept."""
    place = pl.int_range(pl.len(), dtype=pl.Int64)
    if how is Duplicates.last:
        return -place
    if how is not Duplicates.newest:
        return place
    name = next((n for n in _TIMES if n in raw.columns), None)
    if name is None:
        raise InputError(
            f"data.duplicates=newest: {where} has no column {_TIMES[0]} or {_TIMES[1]}; name the one with "
            f"the time of a row, e.g. {override('data.columns', {f'items.{_TIMES[0]}': frame.columns[-1]})}"
        )
    time = raw.select(unix_seconds(name, raw.schema[name])).to_series()
    ranks = pl.DataFrame({"time": time}).select(
        pl.struct(pl.col("time").fill_null(pl.lit(-(2**62))), pl.int_range(pl.len())).rank("ordinal")
    )
    return pl.lit(-ranks.to_series().cast(pl.Int64))


def repeats(frame: pl.DataFrame, raw: pl.DataFrame, how: Duplicates | None, where: str) -> pl.Series:
    """Return why a row is dropped for another one of its item, or null, [rows].

    Args:
        frame: usable rows, typed.
        raw: the same rows, unparsed.
        how: which row is kept; null keeps the first, and stops where too many differ.
        where: the table's name in messages.

    Raises:
        InputError: more than a few rows differ from another one of their item and `how` is null.
    """
    lists = [pl.col(c).list.join("\x1f") for c, t in frame.schema.items() if isinstance(t, pl.List)]
    flat = frame.with_columns(lists)
    ordered = flat.select(
        pl.col(schema.ITEM_ID),
        pl.struct(pl.exclude(FILE, ROW)).rank("dense").alias("content"),
        _preference(frame, raw, how, where).alias("preference"),
    )
    best = pl.col("preference") == pl.col("preference").min().over(schema.ITEM_ID)
    kept = pl.col("content").sort_by("preference").first().over(schema.ITEM_ID)
    reasons = ordered.select(
        pl.when(best)
        .then(None)
        .when(pl.col("content") == kept)
        .then(pl.lit(why.REPEATED_ITEM))
        .otherwise(pl.lit(why.CONFLICTING_ITEM))
        .alias(why.REASON)
    ).to_series()
    conflicts = int((reasons == why.CONFLICTING_ITEM).sum())
    if how is None and conflicts >= _FEW and conflicts > _MOST * frame.height:
        raise InputError(_conflict(flat, raw, reasons, where))
    return reasons


def _conflict(flat: pl.DataFrame, raw: pl.DataFrame, reasons: pl.Series, where: str) -> str:
    """Return a message on how rows of the same item differ, the likely cause, and the fix."""
    columns = [c for c in flat.columns if c not in (schema.ITEM_ID, *BOOKKEEPING)]
    placed = flat.with_row_index(_AT)
    others = placed.filter(reasons == why.CONFLICTING_ITEM)
    kept = placed.filter(reasons.is_null())
    pairs = others.join(kept, on=schema.ITEM_ID, suffix=_KEPT, maintain_order="left")
    counts = pairs.select(pl.col(c).ne_missing(pl.col(f"{c}{_KEPT}")).sum() for c in columns).row(0)
    differing = [c for n, c in sorted(zip(counts, columns, strict=True), key=lambda nc: -nc[0]) if n]
    example = pairs.row(0, named=True)
    this, other = (raw.row(example[at], named=True) for at in (f"{_AT}{_KEPT}", _AT))
    shown = ", ".join(
        f"{c} {_quoted(this[c])} and {_quoted(other[c])}" for c in differing if this[c] != other[c]
    )
    return (
        f"{where}: {others.height:,} of {flat.height:,} rows repeat the item_id of another row and differ "
        f"from it, e.g. '{example[schema.ITEM_ID]}' in rows {this[ROW]} and {other[ROW]}: {shown}. "
        f"{_cause(flat, pairs, differing)}"
    )


def _quoted(value: object) -> str:
    text = "nothing" if value is None else f"'{value}'"
    return text if len(text) <= _SHOWN_CHARS else f"{text[:_SHOWN_CHARS]}...'"


def _cause(flat: pl.DataFrame, pairs: pl.DataFrame, differing: Sequence[str]) -> str:
    columns = [c for c in flat.columns if c not in (schema.ITEM_ID, *BOOKKEEPING)]
    if long := _properties(flat, columns):
        return f"One row per property? {override('data.properties', long)} reads that"
    unique = next((c for c in columns if _is_unique(flat[c])), None)
    if unique is not None:
        return (
            f"Is '{unique}' the id? {override('data.columns', {'items.item_id': unique})} takes it; "
            "data.duplicates=first keeps the first row of each item"
        )
    moment = next((c for c in differing if _is_time(flat, c)), None)
    if moment is not None:
        return (
            "One row per change? "
            f"{override('data.columns', {f'items.{schema.UPDATED_AT}': moment})} data.duplicates=newest "
            "keeps the newest row of each item"
        )
    emptied = pairs.select(
        (pl.col(c).is_null() & pl.col(f"{c}{_KEPT}").is_not_null()).mean() for c in differing
    ).row(0)
    lacking = differing[max(range(len(differing)), key=emptied.__getitem__)]
    what = f"which lack '{lacking}'" if max(emptied) > _MOST else f"which differ in '{differing[0]}'"
    return (
        f"Rows of variants or pictures, {what}? data.duplicates=first keeps the first row of each item, "
        "data.duplicates=last the last one"
    )


def _properties(flat: pl.DataFrame, columns: Sequence[str]) -> dict[str, str]:
    """Return `data.properties` of a table in long form, or nothing.

    There each item has every property at most once, and few distinct names cover many rows.
    """
    if not 2 <= len(columns) <= _NARROW:
        return {}
    for name in columns:
        values = flat[name]
        if values.dtype != pl.String or values.null_count() or values.n_unique() > flat.height / _FEW:
            continue
        times = [c for c in columns if c != name and _is_time(flat, c)]
        keys = [schema.ITEM_ID, name, *times]
        rest = [c for c in columns if c not in (name, *times)]
        words = values.str.contains(r"^\S+$").mean()
        if len(rest) == 1 and flat.select(keys).n_unique() > (1 - _MOST) * flat.height and words == 1.0:
            long = {"name": name, "value": rest[0]}
            return {**long, "time": times[0]} if times else long
    return {}


def _is_unique(column: pl.Series) -> bool:
    """Return whether a column of codes has a distinct value in every row."""
    if column.dtype not in (pl.String, pl.Int64) or column.null_count():
        return False
    codes = column.cast(pl.String).str.contains(r"^[^\s/]*\d[^\s/]*$").mean()
    return codes == 1.0 and column.n_unique() == len(column) and not _times_of(column)


def _times_of(column: pl.Series) -> bool:
    frame = column.to_frame("x")
    if column.dtype != pl.String:
        return False
    return bool(frame.select(unix_seconds("x", column.dtype).is_not_null().all()).item()) and bool(
        column.str.contains(r"\d{4}.\d|\d{8,}").all()
    )


def _is_time(frame: pl.DataFrame, name: str) -> bool:
    """Return whether a column holds times, by its name or because every value parses as one."""
    if frame[name].dtype.is_numeric():
        words = name.lower().replace("_", " ").split()
        return bool({"time", "timestamp", "date", "at"} & set(words)) or name.lower().endswith("time")
    return _times_of(frame[name])
