"""Profiles of columns' values, regardless of their names."""

from __future__ import annotations

import time
from dataclasses import dataclass

import polars as pl

from conf.tables import Decimal
from features.files.readers import BOOKKEEPING
from features.ingest.cleaning import present
from features.ingest.columns import CLOCK
from features.values.numbers import number, sign_of
from features.values.times import USUAL, AmbiguousDatesError, time_style, unix_seconds

_EARLIEST = 631_152_000
"""1990-01-01: an earlier time is more likely a small number."""
_YEAR = 366 * 86_400
_URL = r"^\s*(?:https?://|www\.)\S+\s*$"
_HTML = r"<[a-zA-Z][^<>]*>"
_CODE = r"^\s*\S+\s*$"
_WHOLE = r"^\s*\d+\.0\s*$"
"""An integer formatted as a float, as ids in columns with missing values."""
_SHOWN = 3


@dataclass(frozen=True)
class ColumnProfile:
    """Shares are of the present values; 0 without any."""

    name: str
    nested: str = ""
    """The type of a column of objects or of lists of objects, which cannot be read as it is."""
    filled: float = 0.0
    """Share of rows with a value."""
    distinct: float = 0.0
    """Distinct values as a share of all: 1 for keys."""
    values: int = 0
    """Distinct values in the sample."""
    time: float = 0.0
    """Share that parses as a time between 1990 and a year from now."""
    written_time: float = 0.0
    """The same of values other than bare numbers."""
    number: float = 0.0
    """Share that parses as a number."""
    decimal: float = 0.0
    """Share that parses as a number and has a decimal sign or a currency."""
    clock: float = 0.0
    """Share that is a time of day without a date."""
    hours: float = 0.0
    """Share with a time of day other than midnight."""
    url: float = 0.0
    html: float = 0.0
    code: float = 0.0
    """Share that is one word without blanks."""
    words: float = 0.0
    """Mean number of words."""
    samples: tuple[str, ...] = ()
    """The first distinct values."""
    moments: tuple[str, ...] = ()
    """These, parsed as times."""
    amounts: tuple[str, ...] = ()
    """These, parsed as numbers."""
    either: tuple[str, ...] = ()
    """Two formats of dates with an ambiguous order of day and month."""


def as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    """Format a column as text; lists of plain values are joined."""
    column = pl.col(name)
    if isinstance(dtype, pl.List | pl.Array):
        column = column.arr.to_list() if isinstance(dtype, pl.Array) else column
        return column.cast(pl.List(pl.String), strict=False).list.join(", ")
    return column.cast(pl.String, strict=False)


def is_nested(dtype: pl.DataType) -> bool:
    """Return whether a column holds objects, or lists of objects or of lists."""
    if isinstance(dtype, pl.List | pl.Array):
        return bool(dtype.inner.is_nested())
    return dtype.is_nested() or dtype == pl.Binary


def _times(given: pl.DataFrame, name: str) -> tuple[pl.Series, tuple[str, ...]]:
    """Parse a column as times, [rows] Unix seconds, with two formats if its dates are ambiguous."""
    dtype = given.schema[name]
    if isinstance(dtype, pl.List | pl.Array) or dtype == pl.Boolean:
        return pl.Series([None], dtype=pl.Int64).new_from_index(0, given.height), ()
    style = USUAL
    either: tuple[str, ...] = ()
    try:
        style = time_style(given.lazy(), name, None, name)
    except AmbiguousDatesError as error:
        either = error.forms
    return given.select(unix_seconds(name, dtype, style)).to_series(), either


def _numbers(given: pl.DataFrame, name: str) -> pl.Series:
    """Parse a column as numbers, [rows], with the inferred decimal sign."""
    dtype = given.schema[name]
    if isinstance(dtype, pl.List | pl.Array) or dtype.is_temporal():
        return pl.Series([None], dtype=pl.Float64).new_from_index(0, given.height)
    return given.select(number(name, dtype, sign_of(given.lazy(), name, Decimal.auto))).to_series()


def _shown(values: pl.Series) -> tuple[str, ...]:
    return tuple(str(value) for value in values.head(_SHOWN) if value is not None)


def profile(frame: pl.DataFrame, name: str) -> ColumnProfile:
    """Return the profile of one column of a sample."""
    dtype = frame.schema[name]
    if is_nested(dtype):
        there = 1 - frame[name].null_count() / max(frame.height, 1)
        return ColumnProfile(name, nested=str(dtype), filled=there)
    text = frame.select(as_text(name, dtype).alias("text"), present(name, dtype).alias("given"))
    given = frame.filter(text["given"])
    values = text.filter("given")["text"]
    if values.is_empty():
        return ColumnProfile(name)
    now = int(time.time())
    moment, either = _times(given, name)
    amount = _numbers(given, name)
    timely = moment.is_between(_EARLIEST, now + _YEAR).fill_null(False)
    written = timely & ~values.str.contains(r"^\s*[\d.]+\s*$")
    if dtype.is_temporal():
        written = timely
    signed = values.str.contains(r"\d[.,]\d{1,2}\D*$|[$€£¥]|^(?:[A-Z]{3}|R\$)\s|\s[A-Z]{3}$").fill_null(False)
    signed &= ~values.str.contains(_WHOLE)
    first = values.is_first_distinct()

    def share(mask: pl.Series) -> float:
        return float(mask.fill_null(False).sum()) / len(values)

    return ColumnProfile(
        name,
        filled=len(values) / frame.height,
        distinct=values.n_unique() / len(values),
        values=values.n_unique(),
        time=share(timely),
        written_time=share(written),
        number=share(amount.is_not_null()),
        decimal=share(signed & values.str.contains(r"^\D{0,4}\s?[\d.,' ]+\D{0,4}$")),
        clock=share(values.str.contains(CLOCK)),
        hours=share(moment % 86_400 != 0),
        url=share(values.str.contains(_URL)),
        html=share(values.str.contains(_HTML)),
        code=share(values.str.contains(_CODE)),
        words=float(values.str.count_matches(r"\S+").mean() or 0),  # type: ignore[arg-type]
        samples=tuple(values.filter(first).head(_SHOWN)),
        moments=_shown(pl.from_epoch(moment.filter(first)).dt.strftime("%Y-%m-%d %H:%M:%S UTC")),
        amounts=_shown(amount.filter(first)),
        either=either,
    )


def profiles(frame: pl.DataFrame) -> dict[str, ColumnProfile]:
    """Return the profile of every column of a sample, by name."""
    return {name: profile(frame, name) for name in frame.columns if name not in BOOKKEEPING}
