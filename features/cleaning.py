"""Column by column: ids, times, numbers and attributes from whatever type the files hold."""

from __future__ import annotations

import polars as pl
import polars.selectors as cs

_NUMBER = r"^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*$"
_WHOLE = r"^\s*[+-]?(?:0|[1-9]\d{0,17})\s*$"
_NOT_A_QUANTITY = r"^\s*[+-]?(?:0\d|\d{19})"
"""A leading zero, or more digits than a number holds: an id or a code."""
_ISO = (
    r"^\s*(?<day>\d{4}[-/]\d{2}[-/]\d{2})"
    r"(?:[T ](?<minute>\d{2}:\d{2})(?::(?<second>\d{2})(?:[.,]\d+)?)?)?"
    r"\s*(?:Z|z|UTC|GMT|(?<sign>[+-])(?<hours>\d{2}):?(?<minutes>\d{2})?)?\s*$"
)
_SECONDS_LIMIT = 10**11
"""Unix seconds below this (year 5138); beyond are milliseconds, then micro- and nanoseconds."""


_SHORTENED = r"^\s*\d(?:[.,]\d+)?E\+\d{2,3}\s*$"
"""How spreadsheets write a number of more than 11 or 15 digits; the others are lost."""


def shortened(name: str, dtype: pl.DataType) -> pl.Expr:
    """Whether an id is a long number that a spreadsheet has shortened, `4.01234E+12`."""
    return pl.col(name).str.contains(_SHORTENED) if dtype == pl.String else pl.lit(False)


def string_id(name: str, dtype: pl.DataType) -> pl.Expr:
    """Read an id: text without surrounding blanks, whole numbers without `.0`; blank and NaN become null."""
    column = pl.col(name)
    if dtype.is_float():
        whole = (column == column.floor()) & (column.abs() < 2**63)
        number = column.cast(pl.Int64, strict=False).cast(pl.String)
        return pl.when(column.is_nan()).then(None).when(whole).then(number).otherwise(column.cast(pl.String))
    text = column.cast(pl.String, strict=False).str.strip_chars()
    return pl.when(text != "").then(text)


def present(name: str, dtype: pl.DataType) -> pl.Expr:
    """Whether a row has a value at all (a blank string and NaN do not count)."""
    column = pl.col(name)
    if dtype == pl.String:
        return (column.str.strip_chars() != "").fill_null(False)
    return (column.is_not_null() & ~column.is_nan()) if dtype.is_float() else column.is_not_null()


def _from_number(number: pl.Expr) -> pl.Expr:
    """Seconds from Unix seconds, milli-, micro- or nanoseconds (told by magnitude) or a day `YYYYMMDD`."""
    size = number.abs()
    day = number.cast(pl.String).str.to_date("%Y%m%d", strict=False).dt.epoch("s")
    written_day = number.is_between(19900101, 20991231) & day.is_not_null()
    return (
        pl.when(written_day)
        .then(day)
        .when(size < _SECONDS_LIMIT)
        .then(number)
        .when(size < _SECONDS_LIMIT * 1_000)
        .then(number.floordiv(1_000))
        .when(size < _SECONDS_LIMIT * 1_000_000)
        .then(number.floordiv(1_000_000))
        .otherwise(number.floordiv(1_000_000_000))
    )


def _from_text(text: pl.Expr) -> pl.Expr:
    iso = text.str.extract_groups(_ISO)

    def part(name: str) -> pl.Expr:
        return iso.struct.field(name)

    written = pl.concat_str(
        part("day").str.replace_all("/", "-", literal=True),
        pl.lit(" "),
        part("minute").fill_null("00:00"),
        pl.lit(":"),
        part("second").fill_null("00"),
    )
    local = written.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False).dt.epoch("s")
    hours = part("hours").cast(pl.Int64, strict=False).fill_null(0)
    minutes = part("minutes").cast(pl.Int64, strict=False).fill_null(0)
    offset = (hours * 3600 + minutes * 60) * pl.when(part("sign") == "-").then(-1).otherwise(1)
    number = pl.when(text.str.contains(_NUMBER)).then(text.str.strip_chars())
    whole = number.cast(pl.Float64, strict=False).floor().cast(pl.Int64, strict=False)
    return pl.coalesce(local - offset, _from_number(whole))


def unix_seconds(name: str, dtype: pl.DataType) -> pl.Expr:
    """Read a time as Unix seconds (UTC); what cannot be read becomes null.

    Takes datetimes (naive ones are UTC), dates, ISO text with or without offset, Unix seconds, milli-, micro-
    and nanoseconds as number or text, and eight-digit days.
    """
    column = pl.col(name)
    if dtype.is_temporal() and not isinstance(dtype, pl.Time | pl.Duration):
        return column.dt.epoch("s")
    if dtype.is_integer():
        return _from_number(column.cast(pl.Int64, strict=False))
    if dtype.is_float() or dtype.is_decimal():
        return _from_number(column.cast(pl.Float64).floor().cast(pl.Int64, strict=False))
    if dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum):
        return _from_text(column.cast(pl.String))
    return pl.lit(None, dtype=pl.Int64)


def number(name: str, dtype: pl.DataType) -> pl.Expr:
    """Read a finite number; text may carry a currency sign and thousands commas (`$1,299.00`)."""
    column = pl.col(name)
    if dtype == pl.String:
        column = column.str.replace_all(r"[\s$€£¥₹]|(?:USD|EUR|GBP)", "")
        grouped = column.str.contains(r"^[+-]?\d{1,3}(?:,\d{3})+(?:\.\d+)?$")
        column = pl.when(grouped).then(column.str.replace_all(",", "", literal=True)).otherwise(column)
    value = column.cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)


def whole_number(name: str, dtype: pl.DataType) -> pl.Expr:
    """Read an integer (`3`, `3.0` and the text of either); anything else becomes null."""
    column = pl.col(name)
    if dtype.is_integer():
        return column.cast(pl.Int64, strict=False)
    value = number(name, dtype)
    exact = value.cast(pl.Int64, strict=False)
    if dtype == pl.String:
        exact = pl.coalesce(column.str.strip_chars().cast(pl.Int64, strict=False), exact)
    return pl.when(value == value.floor()).then(exact)


def infer_types(frame: pl.DataFrame, keep: set[str]) -> pl.DataFrame:
    """Give the string columns of an untyped file (CSV) the type that all of their values have.

    Integers, numbers and `true`/`false`; one value with a leading zero (`007`) or 19 digits
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
        if values.str.to_lowercase().is_in(["true", "false"]).all():
            casts.append((pl.col(name).str.to_lowercase() == "true").alias(name))
        elif not values.str.contains(_NOT_A_QUANTITY).any():
            stripped = pl.col(name).str.strip_chars()
            if values.str.contains(_WHOLE).all():
                casts.append(stripped.cast(pl.Int64).alias(name))
            elif values.str.contains(_NUMBER).all():
                casts.append(stripped.cast(pl.Float64).alias(name))
    return frame.with_columns(casts)


def plain_attributes(frame: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """Reduce a table to what the contract knows: strings, whole and real numbers, bools, lists of strings.

    Returns:
        The table, and the names of the columns that are none of these (nested objects, bytes), left out.
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
