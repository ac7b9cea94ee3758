"""Parsing of columns: ids, times, numbers and attributes from any type."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import polars as pl
import polars.selectors as cs

from features.values.numbers import number

_NUMBER = r"^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*$"
_WHOLE = r"^\s*[+-]?(?:0|[1-9]\d{0,17})\s*$"
_NOT_A_QUANTITY = r"^\s*[+-]?(?:0\d|\d{19})"
"""A leading zero, or more digits than a number can hold: an id or a code."""
_YES = ("true", "yes", "ja", "oui", "sim", "sí")
_NO = ("false", "no", "nein", "non", "não")
_FLOAT_ID = r"^([1-9]\d*|0)\.0$"
"""Whole numbers formatted as floats, as in columns with missing values."""
_INVISIBLE = "[\u200b\u200c\u200d\u2060\ufeff]"
_AS_TEXT = r"""^(?:="([^"]*)"|'([^']+))$"""
_WRITTEN_AS_TEXT = rf"{_INVISIBLE}|{_AS_TEXT}"
_SAMPLE = 10_000
_SHORTENED = r"^\s*\d(?:[.,]\d+)?E\+\d{2,3}\s*$"
"""A number of more than 11 or 15 digits as formatted by a spreadsheet, with digits lost."""


def shortened(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return whether an id is a long number shortened by a spreadsheet, `4.01234E+12`."""
    return pl.col(name).str.contains(_SHORTENED) if dtype == pl.String else pl.lit(False)


MISSING = (
    "null", "none", "nan", "NaN", "NaT", "n/a", "#n/a", "<na>", "nil", "undefined", "(not set)", "(none)",
    "\\N", "-1",
)  # fmt: skip
"""Placeholders for missing values in exports of databases, spreadsheets and web analytics."""

NOT_AVAILABLE = "NA"
"""Missing value of R and pandas: only in capitals, and only as a user, a session, a time or a number of an
event; elsewhere it may be a code."""


def placeholders(missing: Iterable[str] | None) -> list[str]:
    """Return the placeholders for missing values, in their usual cases.

    Args:
        missing: `data.missing`; None takes the usual ones.
    """
    words = MISSING if missing is None else missing
    return sorted({form for w in words for form in (w, w.lower(), w.upper(), w.capitalize(), w.title())})


def placeholders_to_null(text: pl.Expr, missing: Sequence[str]) -> pl.Expr:
    """Replace placeholders in a text column by null."""
    return pl.when(~text.is_in(list(missing))).then(text) if missing else text


def null_placeholder_columns(
    types: Mapping[str, pl.DataType], names: Iterable[str], missing: Sequence[str]
) -> list[pl.Expr]:
    """Replace placeholders by null in columns other than ids, where numbers are values."""
    words = [word for word in missing if not re.fullmatch(_NUMBER, word)]
    return [placeholders_to_null(pl.col(c), words).alias(c) for c in names if types[c] == pl.String and words]


def string_id(name: str, dtype: pl.DataType) -> pl.Expr:
    """Parse an id: text without surrounding blanks, whole numbers without `.0`; blank and NaN become null."""
    column = pl.col(name)
    if dtype.is_float():
        whole = (column == column.floor()) & (column.abs() < 2**63)
        number = column.cast(pl.Int64, strict=False).cast(pl.String)
        return pl.when(column.is_nan()).then(None).when(whole).then(number).otherwise(column.cast(pl.String))
    text = column.cast(pl.String, strict=False).str.strip_chars()
    return pl.when(text != "").then(text)


@dataclass(frozen=True)
class IdStyle:
    """How a column of ids is written, inferred from its first rows."""

    marked: bool = False
    """Whether spreadsheets' marks of text (`="007"`, `'007`) or invisible characters occur."""
    floats: bool = False
    """Whether it was a float column (`1112.0` in all rows)."""


def id_style(frame: pl.LazyFrame, name: str) -> IdStyle:
    """Infer how a column of ids is written from its first rows."""
    dtype = frame.collect_schema()[name]
    if dtype != pl.String:
        return IdStyle()
    read = string_id(name, dtype)
    first = frame.select(read.alias("id")).head(_SAMPLE).collect(engine="streaming")["id"].drop_nulls()
    if first.is_empty():
        return IdStyle()
    return IdStyle(
        bool(first.str.contains(_WRITTEN_AS_TEXT).any()), bool(first.str.contains(_FLOAT_ID).all())
    )


def styled_id(name: str, dtype: pl.DataType, style: IdStyle) -> pl.Expr:
    """Parse an id like `string_id`, without the marks of its column's style, floats as integers."""
    read = string_id(name, dtype)
    if style.marked:
        read = read.str.replace_all(_INVISIBLE, "").str.replace(_AS_TEXT, "$1$2")
    return read.str.replace(_FLOAT_ID, "$1") if style.floats else read


def id_of(frame: pl.LazyFrame, name: str) -> pl.Expr:
    """Parse a column of ids of a table in the style of its first rows."""
    return styled_id(name, frame.collect_schema()[name], id_style(frame, name))


def present(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return whether a row has a value (a blank string and NaN do not count)."""
    column = pl.col(name)
    if dtype == pl.String:
        return (column.str.strip_chars() != "").fill_null(False)
    return (column.is_not_null() & ~column.is_nan()) if dtype.is_float() else column.is_not_null()


def whole_number(name: str, dtype: pl.DataType) -> pl.Expr:
    """Parse an integer (`3`, `3.0` and the text of either); anything else becomes null."""
    column = pl.col(name)
    if dtype.is_integer():
        return column.cast(pl.Int64, strict=False)
    value = number(name, dtype)
    exact = value.cast(pl.Int64, strict=False)
    if dtype == pl.String:
        exact = pl.coalesce(column.str.strip_chars().cast(pl.Int64, strict=False), exact)
    return pl.when(value == value.floor()).then(exact)


def infer_types(frame: pl.DataFrame, keep: set[str]) -> pl.DataFrame:
    """Cast the string columns of an untyped file (CSV) to the type that fits all of their values.

    Integers, numbers, `true`/`false` and yes/no; one value with a leading zero (`007`) or 19 digits
    keeps the column a string.

    Args:
        frame: the table.
        keep: columns that stay strings (ids and text fields).
    """
    casts = []
    for name in frame.select(cs.string()).columns:
        values = frame[name].drop_nulls()
        if name in keep or values.is_empty():
            continue
        if values.str.to_lowercase().is_in([*_YES, *_NO]).all():
            casts.append(pl.col(name).str.to_lowercase().is_in(_YES).alias(name))
        elif not values.str.contains(_NOT_A_QUANTITY).any():
            stripped = pl.col(name).str.strip_chars()
            if values.str.contains(_WHOLE).all():
                casts.append(stripped.cast(pl.Int64).alias(name))
            elif values.str.contains(_NUMBER).all():
                casts.append(stripped.cast(pl.Float64).alias(name))
    return frame.with_columns(casts)


def plain_attributes(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Reduce a table to the contract's types: strings, integers, floats, bools, lists of strings.

    Returns:
        The table, and the names of the dropped columns of other types (nested objects, bytes).
    """
    casts: list[pl.Expr] = []
    dropped: list[str] = []
    for name, dtype in frame.schema.items():
        column = pl.col(name)
        if dtype in (pl.String, pl.Boolean, pl.Int64, pl.Float64):
            casts.append(column)
        elif dtype.is_integer():
            casts.append(column.cast(pl.Int64, strict=False))
        elif dtype.is_float() or dtype.is_decimal():
            casts.append(column.cast(pl.Float64))
        elif isinstance(dtype, pl.Categorical | pl.Enum) or dtype.is_temporal():
            casts.append(column.cast(pl.String))
        elif isinstance(dtype, pl.List | pl.Array) and not dtype.inner.is_nested():
            as_list = column.arr.to_list() if isinstance(dtype, pl.Array) else column
            casts.append(as_list.cast(pl.List(pl.String)).list.drop_nulls())
        elif dtype == pl.Null:
            casts.append(column.cast(pl.String))
        else:
            dropped.append(name)
    return frame.select(casts), dropped
