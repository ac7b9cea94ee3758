"""`data.types`: declared types of text columns, where the values are ambiguous."""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from conf.errors import InputError, closest
from conf.tables import Decimal
from features.values.numbers import number, sign_of
from features.values.times import time_style, unix_seconds

_SEPARATORS = ("|", " > ", ";", ",")
"""Separators of lists; the first that a column uses is taken."""
_ELEMENT = r"""\"[^\"]*\"|'[^']*'|[^,\s][^,]*"""
"""A value of an array, quoted or not."""
_YES = ("true", "yes", "y", "ja", "oui", "sim", "sí", "si", "tak", "1")
_NO = ("false", "no", "n", "nein", "non", "não", "nao", "nie", "0")


def elements(array: pl.Expr) -> pl.Expr:
    """Parse arrays in text, `["a", 'b']` and `[1, 2]`, into their non-empty values."""
    clean = pl.element().str.strip_chars().str.strip_chars("\"'")
    found = array.str.strip_chars().str.strip_chars("[]").str.extract_all(_ELEMENT)
    return found.list.eval(clean.filter(clean != ""))


def as_list(values: pl.Series) -> pl.Series:
    """Parse text into lists, [rows] lists: a JSON array, or parts separated by `|`, ` > `, `;` or commas."""
    text = pl.col("x").str.strip_chars()
    arrays = values.drop_nulls().str.strip_chars().str.contains(r"^\[.*\]$").all()
    if arrays:
        lists = elements(text)
    else:
        used = [s for s in _SEPARATORS if values.str.contains(s, literal=True).any()]
        clean = pl.element().str.strip_chars()
        lists = text.str.split(used[0] if used else _SEPARATORS[0]).list.eval(clean.filter(clean != ""))
    frame = values.to_frame("x")
    return frame.select(pl.when(pl.col("x").is_not_null()).then(lists)).to_series().alias(values.name)


def as_bool(values: pl.Series) -> pl.Series:
    """Parse yes and no in several languages, [rows] bools; anything else is null."""
    text = pl.col("x").str.strip_chars().str.to_lowercase()
    read = pl.when(text.is_in(_YES)).then(True).when(text.is_in(_NO)).then(False)
    return values.to_frame("x").select(read).to_series().alias(values.name)


def with_types(frame: pl.DataFrame, types: Mapping[str, str], decimal: Decimal, where: str) -> pl.DataFrame:
    """Parse text columns as the types that `data.types` declares.

    Args:
        frame: the items as the files have them.
        types: column -> `string`, `number`, `bool`, `list` or `time`; those of the events are ignored.
        decimal: `data.decimal`.
        where: the table's name in messages.

    Raises:
        InputError: a column that the table does not have.
    """
    for key, kind in types.items():
        name = key.removeprefix("items.")
        if name.startswith("events."):
            continue
        if name not in frame.columns:
            raise InputError(
                f"data.types: no column '{name}' in {where}{closest(name, frame.columns) or '.'} "
                f"Columns: {', '.join(frame.columns)}"
            )
        dtype = frame.schema[name]
        if kind == "string" and not dtype.is_nested():
            frame = frame.with_columns(pl.col(name).cast(pl.String))
        elif kind == "number":
            sign = sign_of(frame.lazy(), name, decimal)
            frame = frame.with_columns(number(name, dtype, sign).alias(name))
        elif kind == "time":
            style = time_style(frame.lazy(), name, None, where)
            frame = frame.with_columns(unix_seconds(name, dtype, style).alias(name))
        elif dtype == pl.String:
            frame = frame.with_columns(as_list(frame[name]) if kind == "list" else as_bool(frame[name]))
    return frame
