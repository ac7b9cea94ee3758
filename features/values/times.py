"""Parsing of times as Unix seconds.

ISO times, Unix seconds and their fractions are unambiguous. Whether `05/01/2024` is a day in January or in
May, and whether 45413 is a second of 1970 or the day number of a spreadsheet, cannot be told from one value:
the style of such a column is inferred from all its values first.
"""

from __future__ import annotations

import re
import time as clock
from dataclasses import dataclass

import polars as pl

from conf.composition.overrides import override
from conf.errors import InputError

_NUMBER = r"^\s*[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?\s*$"
_ISO = (
    r"^\s*(?<day>\d{4}[-/]\d{2}[-/]\d{2})"
    r"(?:[T ](?<minute>\d{2}:\d{2})(?::(?<second>\d{2})(?:[.,]\d+)?)?)?"
    r"\s*(?:Z|z|UTC|GMT|(?<sign>[+-])(?<hours>\d{2}):?(?<minutes>\d{2})?)?\s*$"
)
_WEEKDAY = r"^\s*(?:\p{L}{2,10}\.?,?\s+)?"
_CLOCK = (
    r"(?:(?:\s*[T,:]\s*|\s+)(?:\p{L}{2}\s+)?(?<hour>\d{1,2})[:.h](?<minute>\d{2})"
    r"(?:[:.](?<second>\d{2})(?:[.,]\d+)?)?(?:\s*(?<half>[AaPp])\.?[Mm]\.?|\s*Uhr)?)?"
)
_COMPACT_CLOCK = r"(?:[T ]?(?<hour>\d{2}):?(?<minute>\d{2}):?(?<second>\d{2})?(?:[.,]\d+)?(?<half>x)?)?"
_ZONE = (
    r"\s*(?:(?:UTC|GMT)?\s*(?<sign>[+-])(?<hours>\d{1,2}):?(?<minutes>\d{2})?|"
    r"(?<zone>[A-Z][A-Za-z]*(?:/\w+)*))?"
    r"\s*(?:\[(?<place>[\w/+-]+)\]|\([^)]*\))?\s*$"
)
_YEAR_FIRST = rf"{_WEEKDAY}(?<year>\d{{4}})[-/. ](?<month>\d{{1,2}})[-/. ](?<day>\d{{1,2}}){_CLOCK}{_ZONE}"
_COMPACT = rf"^\s*(?<year>\d{{4}})(?<month>\d{{2}})(?<day>\d{{2}}){_COMPACT_CLOCK}{_ZONE}"
_YEAR_LAST = (
    rf"{_WEEKDAY}(?<one>\d{{1,2}})(?<by>[-/. ])(?<other>\d{{1,2}})[-/. ](?<year>\d{{4}}|\d{{2}})"
    rf"{_CLOCK}{_ZONE}"
)
_DAY_NAMED_MONTH = (
    rf"{_WEEKDAY}(?<day>\d{{1,2}})\.?(?:[-/ ]+(?:de )?)(?<name>\p{{L}}{{3,10}})\.?(?:[-/, ]+(?:de )?)"
    rf"(?<year>\d{{4}}|\d{{2}}){_CLOCK}{_ZONE}"
)
_NAMED_MONTH_DAY = (
    rf"^\s*(?:\p{{L}}{{2,10}}\.?,?\s+)??(?<name>\p{{L}}{{3,10}})\.?\s+(?<day>\d{{1,2}})(?:st|nd|rd|th)?,?"
    rf"\s+(?<year>\d{{4}}){_CLOCK}{_ZONE}"
)
_MONTHS = {
    name: month
    for month, names in enumerate(
        ("jan ene gen", "feb fev fév", "mar mär mrz", "apr abr avr", "may mai mag", "jun giu juin",
         "jul lug juil", "aug ago aoû", "sep set", "oct okt out ott", "nov", "dec dez dic déc"), 1,
    )
    for name in names.split()
}  # fmt: skip
_ZONES = {
    "Z": 0, "UTC": 0, "GMT": 0, "UT": 0, "WET": 0, "EST": -5, "EDT": -4, "CST": -6, "CDT": -5, "MST": -7,
    "MDT": -6, "PST": -8, "PDT": -7, "BST": 1, "CET": 1, "WEST": 1, "CEST": 2, "EET": 2, "EEST": 3, "MSK": 3,
    "JST": 9,
}  # fmt: skip
"""Hours before UTC; those of RFC 2822, and of Europe."""
_SECONDS_LIMIT = 10**11
"""Unix seconds below this (year 5138); beyond are milliseconds, then micro- and nanoseconds."""
_SERIALS = (36_526, 55_000)
"""Days since 1899-12-30, as spreadsheets count them, from 2000 to 2050."""
_YEARS = (1990, 2100)
_EPOCH_SERIAL = 25_569
_DIGITS = (
    (19900101, 20991231, "%Y%m%d"),
    (199001010000, 209912312359, "%Y%m%d%H%M"),
    (19900101000000, 20991231235959, "%Y%m%d%H%M%S"),
)
"""Numbers whose digits are a day, a minute or a second."""
FIRST_PLAUSIBLE = 631_152_000
"""1990-01-01"""
_LAST_MONTH = 12
_FEW = 3
_SAMPLE = 10_000
FORMS = (
    "2024-05-01 10:03:00, 2024-05-01T10:03:00+02:00, 1.5.2024 10:03, 5/1/2024 10:03 AM, 20240501T100300Z, "
    "1 May 2024 10:03, Wed, 01 May 2024 10:03:00 +0200, Unix seconds, milli-, micro- and nanoseconds"
)
"""Accepted forms, for messages."""
GIVE_A_FORMAT = (
    "any other form is read with data.timestamp_format, e.g. data.timestamp_format='%d-%m-%y %Hh%M'"
)


class AmbiguousDatesError(InputError):
    """Dates in which the order of day and month is ambiguous."""

    def __init__(self, message: str, forms: list[str]) -> None:
        """Store both formats, that with the day first before the other."""
        super().__init__(message)
        self.forms = tuple(forms)


@dataclass(frozen=True)
class TimeStyle:
    """The format of a column's times, inferred from all its values."""

    format: str | None = None
    """chrono format (`%d.%m.%Y`) of every value; null infers one of the usual ones."""
    day_first: bool = True
    """Whether 05/01/2024 is a day of January."""
    unit: str = "unix"
    """Unit of numbers: `unix` (seconds and fractions), `serial` (a spreadsheet's days) or `year`."""


USUAL = TimeStyle()


def _epoch(frame: pl.DataFrame, year: str, month: str, day: str) -> pl.Series:
    """Return the Unix seconds of a pattern's groups, [rows]; times without a zone are UTC."""

    def two(name: str) -> pl.Expr:
        return pl.col(name).fill_null("0").str.zfill(2)

    hour = pl.col("hour").cast(pl.Int64, strict=False).fill_null(0)
    late = pl.col("half").str.to_lowercase() == "p"
    # Twelve o'clock at night is the hour 0, and noon is 12.
    half = (
        pl.when(pl.col("half").is_null())
        .then(hour)
        .otherwise(hour % 12 + pl.when(late).then(12).otherwise(0))
    )
    century = pl.when(pl.col(year).str.len_bytes() == 2).then(pl.lit("20") + pl.col(year)).otherwise(year)
    written = pl.concat_str(
        century, pl.lit("-"), two(month), pl.lit("-"), two(day), pl.lit(" "),
        half.cast(pl.String).str.zfill(2), pl.lit(":"), two("minute"), pl.lit(":"), two("second"),
    )  # fmt: skip
    local = written.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False)
    named = pl.coalesce("place", "zone")
    offset = (
        pl.col("hours").cast(pl.Int64, strict=False).fill_null(0) * 3600
        + pl.col("minutes").cast(pl.Int64, strict=False).fill_null(0) * 60
    ) * pl.when(pl.col("sign") == "-").then(-1).otherwise(1)
    read = frame.select(
        local.alias("local"), offset.alias("offset"),
        pl.when(pl.col("sign").is_null()).then(named).fill_null("Z").alias("zone"),
    )  # fmt: skip
    parts = [
        _in_zone(part.get_column("local"), part.get_column("offset"), zone)
        .to_frame("at")
        .with_columns(part["row"])
        for (zone,), part in read.with_row_index("row").group_by("zone")
    ]
    return pl.concat(parts).sort("row").get_column("at") if parts else pl.Series("at", dtype=pl.Int64)


def _in_zone(local: pl.Series, offset: pl.Series, zone: object) -> pl.Series:
    """Return the Unix seconds of local times in one zone, by abbreviation or name; null for unknown zones."""
    name = str(zone)
    if name in _ZONES:
        return local.dt.epoch("s") - offset - 3600 * _ZONES[name]
    try:
        here = local.dt.replace_time_zone(name, ambiguous="earliest", non_existent="null")
    except (pl.exceptions.ComputeError, pl.exceptions.InvalidOperationError):
        return pl.Series(local.name, [None], dtype=pl.Int64).new_from_index(0, len(local))
    return here.dt.convert_time_zone("UTC").dt.epoch("s")


def _unusual(text: pl.Series, style: TimeStyle) -> pl.Series:
    """Parse times that are neither ISO nor numbers, [rows]: other orders, names of months, other zones."""
    read = pl.Series("at", [None], dtype=pl.Int64).new_from_index(0, len(text))
    for pattern in (_YEAR_FIRST, _YEAR_LAST, _COMPACT, _DAY_NAMED_MONTH, _NAMED_MONTH_DAY):
        rest = (read.is_null() & text.str.contains(pattern)).fill_null(False).arg_true()
        if rest.is_empty():
            continue
        found = text.gather(rest).to_frame("x").select(pl.col("x").str.extract_groups(pattern)).unnest("x")
        if "by" in found.columns:
            first, other = ("day", "month") if style.day_first else ("month", "day")
            dotted = pl.col("by") == "."
            found = found.with_columns(
                pl.when(dotted)
                .then("one")
                .otherwise(pl.col("one" if first == "day" else "other"))
                .alias("day"),
                pl.when(dotted)
                .then("other")
                .otherwise(pl.col("other" if other == "month" else "one"))
                .alias("month"),
            )
        if "name" in found.columns:
            name = pl.col("name").str.to_lowercase()
            months = {k: str(v) for k, v in _MONTHS.items()}
            month = pl.coalesce(
                name.str.slice(0, n).replace_strict(months, default=None, return_dtype=pl.String)
                for n in (4, 3)
            )
            found = found.with_columns(month.alias("month"))
        if "zone" not in found.columns:
            found = found.with_columns(pl.lit(None, dtype=pl.String).alias("zone"))
        read = read.scatter(rest, _epoch(found, "year", "month", "day"))
    return read


def _iso(text: pl.Series) -> pl.Series:
    """Parse ISO 8601 times, [rows]; null for others."""
    found = text.to_frame("x").select(pl.col("x").str.extract_groups(_ISO)).unnest("x")
    written = pl.concat_str(
        pl.col("day").str.replace_all("/", "-", literal=True),
        pl.lit(" "),
        pl.col("minute").fill_null("00:00"),
        pl.lit(":"),
        pl.col("second").fill_null("00"),
    )
    local = written.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False).dt.epoch("s")
    hours = pl.col("hours").cast(pl.Int64, strict=False).fill_null(0)
    minutes = pl.col("minutes").cast(pl.Int64, strict=False).fill_null(0)
    sign = pl.when(pl.col("sign") == "-").then(-1).otherwise(1)
    return found.select(local - (hours * 3600 + minutes * 60) * sign).to_series()


def _numbers(values: pl.Series, style: TimeStyle) -> pl.Series:
    """Parse numbers, [rows]: by the column's unit, else by magnitude, or as the digits of a day."""
    if style.unit == "serial":
        return ((values.cast(pl.Float64) - _EPOCH_SERIAL) * 86_400).round().cast(pl.Int64, strict=False)
    number = values.floor().cast(pl.Int64, strict=False) if values.dtype.is_float() else values.cast(pl.Int64)
    if style.unit == "year":
        return (number.cast(pl.String) + "0101").str.to_date("%Y%m%d", strict=False).dt.epoch("s")
    n, size = pl.col("n"), pl.col("n").abs()
    seconds = (
        pl.when(size < _SECONDS_LIMIT)
        .then(n)
        .when(size < _SECONDS_LIMIT * 1_000)
        .then(n.floordiv(1_000))
        .when(size < _SECONDS_LIMIT * 1_000_000)
        .then(n.floordiv(1_000_000))
        .otherwise(n.floordiv(1_000_000_000))
    )
    read = number.to_frame("n").select(seconds).to_series()
    for least, most, form in _DIGITS:
        rows = number.is_between(least, most).fill_null(False).arg_true()
        if len(rows):
            moment = number.gather(rows).cast(pl.String).str.to_datetime(form, strict=False).dt.epoch("s")
            read = read.scatter(rows, moment.zip_with(moment.is_not_null(), read.gather(rows)))
    return read


def read_times(values: pl.Series, style: TimeStyle = USUAL) -> pl.Series:
    """Parse a column of numbers or text as Unix seconds, [rows]; null where it cannot be parsed."""
    if values.dtype != pl.String:
        return _numbers(values, style)
    if style.format is not None:
        return values.str.strip_chars().str.to_datetime(style.format, strict=False).dt.epoch("s")
    read = values.str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False).dt.epoch("s")
    readers = (
        (None, _iso),
        (_NUMBER, lambda text: _numbers(text.str.strip_chars().cast(pl.Float64, strict=False), style)),
        (r"\d", lambda text: _unusual(text, style)),
    )
    for pattern, reader in readers:
        rest = read.is_null() & values.is_not_null()
        if pattern is not None:
            rest &= values.str.contains(pattern)
        rows = rest.fill_null(False).arg_true()
        if len(rows):
            read = read.scatter(rows, reader(values.gather(rows)))
    return read


def unix_seconds(name: str, dtype: pl.DataType, style: TimeStyle = USUAL) -> pl.Expr:
    """Parse a time as Unix seconds (UTC); null where it cannot be parsed.

    Takes datetimes (naive ones are UTC), dates, text in any of `FORMS` and numbers.
    """
    column = pl.col(name)
    if dtype.is_temporal() and not isinstance(dtype, pl.Time | pl.Duration):
        return column.dt.epoch("s")
    if dtype.is_integer():
        column = column.cast(pl.Int64, strict=False)
    elif dtype.is_float() or dtype.is_decimal():
        column = column.cast(pl.Float64)
    elif dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum):
        column = column.cast(pl.String)
    else:
        return pl.lit(None, dtype=pl.Int64)
    return column.map_batches(
        lambda values: read_times(values, style), return_dtype=pl.Int64, is_elementwise=True
    )


def _unit(frame: pl.LazyFrame, name: str) -> str:
    """Return the unit of a column of numbers: Unix time, unless all are a spreadsheet's days, or years."""
    number = pl.col(name).cast(pl.String).str.strip_chars().cast(pl.Float64, strict=False)
    facts = (number.min().alias("least"), number.max().alias("most"), number.count().alias("count"),
             (number == number.floor()).all().alias("whole"))  # fmt: skip
    for part in (frame.head(_SAMPLE), frame):  # the whole column only if the sample looks like one
        least, most, count, whole = part.select(facts).collect(engine="streaming").row(0)
        if count < _FEW:
            return "unix"
        if _SERIALS[0] <= least and most < _SERIALS[1]:
            unit = "serial"
        elif whole and _YEARS[0] <= least and most < _YEARS[1]:
            unit = "year"
        else:
            return "unix"
    return unit


def _day_first(frame: pl.LazyFrame, name: str, where: str) -> bool:
    """Return whether the day comes before the month in a column of dates like 05/01/2024.

    Raises:
        AmbiguousDatesError: no date has a day after the twelfth.
    """
    text = pl.col(name).cast(pl.String)
    parts = frame.select(text.str.extract_groups(_YEAR_LAST).alias("x"), text.alias("written"))
    one, other = (pl.col("x").struct.field(part).cast(pl.Int64, strict=False) for part in ("one", "other"))
    undotted = pl.col("x").struct.field("by") != "."
    facts = (
        (undotted & (one > _LAST_MONTH)).sum().alias("days"),
        (undotted & (other > _LAST_MONTH)).sum().alias("months"),
        pl.col("written").filter(undotted & one.is_not_null() & (one != other)).first().alias("example"),
    )
    for part in (parts.head(_SAMPLE), parts):
        days, months, example = part.select(facts).collect(engine="streaming").row(0)
        if days != months:
            return bool(days > months)
        if example is None:
            return True
    by, clock = re.sub(r"[^-/ ]", "", example)[:1], ""
    if parsed := re.search(r"[ T,]+(\d{1,2}):\d{2}(:\d{2})?\s*([AaPp][Mm])?$", example):
        hour = "%I" if parsed.group(3) else "%H"
        clock = f" {hour}:%M{':%S' if parsed.group(2) else ''}{' %p' if parsed.group(3) else ''}"
    year = "%Y" if re.search(r"\d{4}", example) else "%y"
    forms = [f"{by.join((*order, year))}{clock}" for order in (("%d", "%m"), ("%m", "%d"))]
    raise AmbiguousDatesError(
        f"{where}: {name}: does '{example.strip()}' begin with the day or the month? No value tells; "
        f"{override('data.timestamp_format', forms[0])} puts the day first, "
        f"{override('data.timestamp_format', forms[1])} the month",
        forms,
    )


def time_style(frame: pl.LazyFrame, name: str, form: str | None, where: str) -> TimeStyle:
    """Infer the format of a column of times.

    Args:
        frame: the raw table.
        name: its column of times.
        form: `data.timestamp_format`.
        where: the table's name in messages.

    Raises:
        AmbiguousDatesError: the order of day and month is ambiguous.
    """
    dtype = frame.collect_schema()[name]
    if form is not None and dtype == pl.String:
        return TimeStyle(format=form)
    if dtype.is_numeric():
        return TimeStyle(unit=_unit(frame, name))
    if dtype != pl.String:
        return USUAL
    text = pl.col(name)
    numbers, dates = (
        frame.head(_SAMPLE)
        .select(
            text.str.contains(_NUMBER).any().alias("numbers"),
            text.str.contains(_YEAR_LAST).any().alias("dates"),
        )
        .collect(engine="streaming")
        .row(0)
    )
    return TimeStyle(
        unit=_unit(frame, name) if numbers else "unix",
        day_first=_day_first(frame, name, where) if dates else True,
    )


def plausible_time(time: pl.Expr) -> pl.Expr:
    """Return whether a time is plausible for an event: from 1990 to five years from now."""
    return time.is_between(FIRST_PLAUSIBLE, int(clock.time()) + 5 * 366 * 86_400)


def plausible(frame: pl.LazyFrame, time: pl.Expr) -> bool:
    """Return whether most of a column's times are plausible; otherwise their origin is unknown."""
    share = frame.head(_SAMPLE).select(plausible_time(time).mean()).collect(engine="streaming").item()
    return share is not None and share > 1 / 2
