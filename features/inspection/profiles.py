"""What the values of a column look like, without regard to its name."""

from __future__ import annotations

import time
from dataclasses import dataclass

import polars as pl

from features.cleaning import present
from features.numbers import number
from features.readers import BOOKKEEPING
from features.times import unix_seconds

_EARLIEST = 631_152_000
"""1990-01-01: what reads as an earlier time is a small number more likely."""
_YEAR = 366 * 86_400
_URL = r"^\s*(?:https?://|www\.)\S+\s*$"
_HTML = r"<[a-zA-Z][^<>]*>"
_CODE = r"^\s*\S+\s*$"
_SHOWN = 3


@dataclass(frozen=True)
class ColumnProfile:
    """Shares are of the values that are there; where there are none they are 0."""

    name: str
    nested: str = ""
    """The type of a column of objects or of lists of objects, which cannot be read as it is."""
    filled: float = 0.0
    """Share of the rows that have a value."""
    distinct: float = 0.0
    """Share of the values that are different ones: 1 for keys."""
    values: int = 0
    """Different values among the rows looked at."""
    time: float = 0.0
    """Share that reads as a time between 1990 and a year from now."""
    written_time: float = 0.0
    """The same of values that are no bare numbers."""
    number: float = 0.0
    """Share that reads as a number."""
    decimal: float = 0.0
    """Share that reads as a number and has a decimal sign or a currency."""
    url: float = 0.0
    html: float = 0.0
    code: float = 0.0
    """Share that is one word without blanks."""
    words: float = 0.0
    """Mean number of words."""
    samples: tuple[str, ...] = ()
    """The first different values."""


def as_text(name: str, dtype: pl.DataType) -> pl.Expr:
    """Write a column as text; lists of plain values are joined."""
    column = pl.col(name)
    if isinstance(dtype, pl.List | pl.Array):
        column = column.arr.to_list() if isinstance(dtype, pl.Array) else column
        return column.cast(pl.List(pl.String), strict=False).list.join(", ")
    return column.cast(pl.String, strict=False)


def is_nested(dtype: pl.DataType) -> bool:
    """Whether a column holds objects, or lists of objects or of lists."""
    if isinstance(dtype, pl.List | pl.Array):
        return bool(dtype.inner.is_nested())
    return dtype.is_nested() or dtype == pl.Binary


def profile(frame: pl.DataFrame, name: str) -> ColumnProfile:
    """Look at one column of a sample."""
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
    plain = not isinstance(dtype, pl.List | pl.Array)
    moment = given.select(unix_seconds(name, dtype) if plain else pl.lit(None, dtype=pl.Int64)).to_series()
    amount = given.select(number(name, dtype) if plain else pl.lit(None, dtype=pl.Float64)).to_series()
    timely = moment.is_between(_EARLIEST, now + _YEAR).fill_null(False)
    written = timely & ~values.str.contains(r"^\s*[\d.]+\s*$")
    if dtype.is_temporal():
        written = timely
    signed = values.str.contains(r"\d[.,]\d{1,2}\D*$|[$€£¥]|^(?:[A-Z]{3}|R\$)\s|\s[A-Z]{3}$").fill_null(False)
    readable = amount.is_not_null()

    def share(mask: pl.Series) -> float:
        return float(mask.fill_null(False).sum()) / len(values)

    return ColumnProfile(
        name,
        filled=len(values) / frame.height,
        distinct=values.n_unique() / len(values),
        values=values.n_unique(),
        time=share(timely),
        written_time=share(written),
        number=share(readable | (signed & values.str.contains(r"^\D{0,4}\d"))),
        decimal=share(signed & values.str.contains(r"^\D{0,4}\s?[\d.,' ]+\D{0,4}$")),
        url=share(values.str.contains(_URL)),
        html=share(values.str.contains(_HTML)),
        code=share(values.str.contains(_CODE)),
        words=float(values.str.count_matches(r"\S+").mean() or 0),  # type: ignore[arg-type]
        samples=tuple(values.unique(maintain_order=True).head(_SHOWN)),
    )


def profiles(frame: pl.DataFrame) -> dict[str, ColumnProfile]:
    """Look at every column of a sample, by name."""
    return {name: profile(frame, name) for name in frame.columns if name not in BOOKKEEPING}
