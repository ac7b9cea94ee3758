"""Parsing of numbers: currencies, groups of digits, and a decimal sign that depends on the country.

`1.299,00` and `1,299.00` are unambiguous; `1.299` and `12,500` are not. The sign of these is inferred from
the other values of the column.
"""

from __future__ import annotations

import polars as pl

from conf.tables import Decimal

_CODES = (
    "AED|ARS|AUD|BGN|BRL|CAD|CHF|CLP|CNY|COP|CZK|DKK|EGP|EUR|GBP|HKD|HRK|HUF|IDR|ILS|INR|ISK|JPY|KRW|KWD|MAD|"
    "MXN|MYR|NGN|NOK|NZD|PEN|PHP|PKR|PLN|QAR|RON|RSD|RUB|SAR|SEK|SGD|THB|TND|TRY|TWD|UAH|USD|UYU|VND|ZAR"
)
_CURRENCY = (
    rf"(?i:[A-Z]{{0,3}}\p{{Sc}}|{_CODES}|euros?|dollars?|sfr|fr|kr|rs|zł|kč|ft|lei|лв|руб|р|tl|rm|rp|r|s/)\.?"
)
_AMOUNT = rf"(?:{_CURRENCY}\s*)?\d(?:[\d.,'’ ]*\d)?(?:[.,][-–—]+)?(?:\s*{_CURRENCY})?"
_FROM = (
    r"^\s*(?i:ab|from|starting (?:at|from)|as low as|à partir de|a partir de|dès|desde|a partire da|da|vanaf|"
    r"od|från|fra)\s+"
)
_PER_UNIT = r"\s*(?:/|\b(?i:per|pro|je|par|por|al|za)\s)\s*(?:\d+\s*)?\p{L}[\p{L}.²³]*\s*$"
_RANGE = rf"^\s*({_AMOUNT})(?:\s+-\s+|\s*[–—]\s*|\s+(?i:to|bis|à|a|do|tot|til|till)\s+){_AMOUNT}\s*$"
_TIGHT_RANGE = (
    rf"^\s*((?:{_CURRENCY}\s*)?\d[\d.,]*[.,]\d{{2}}(?:\s*{_CURRENCY})?)"
    rf"-(?:{_CURRENCY}\s*)?\d[\d.,]*[.,]\d{{2}}(?:\s*{_CURRENCY})?\s*$"
)
"""Two amounts around a bare hyphen are a range only if both have cents: `2020-2024` and `01-05` are none."""
_INEXACT = (_FROM, _PER_UNIT, _RANGE, _TIGHT_RANGE)
_LESS_THAN_A_THOUSAND = r"[+-]?[1-9]\d{0,2}"
_COMMA_OR_GROUP = rf"^{_LESS_THAN_A_THOUSAND},\d{{3}}$"
_DOT_OR_GROUP = rf"^{_LESS_THAN_A_THOUSAND}\.\d{{3}}$"
_COMMA_GROUPS = rf"^{_LESS_THAN_A_THOUSAND}(?:,\d{{2,3}})+,\d{{3}}$"
_DOT_GROUPS = rf"^{_LESS_THAN_A_THOUSAND}(?:\.\d{{3}})+\.\d{{3}}$"
_DECIMAL_COMMA = r"^[+-]?(?:\d{1,3}(?:\.\d{3})+|\d*),\d+$"
_DECIMAL_DOT = r"^[+-]?(?:\d{1,3}(?:,\d{2,3})*,\d{3}|\d*)\.\d+$"
_SAMPLE = 100_000
"""Number of values with a sign that the inference uses."""
_ROWS = 1_000_000
"""Rows searched for them."""
_UNGROUPED = r"^[+-]?\d{4,}$"


def inexact(values: pl.Series) -> pl.Series:
    """Return which prices are ranges, least prices or prices by unit, [values] bools.

    `5.00 - 9.00`, `ab 5,00 €` and `5,00 €/kg`; they are parsed as their lowest amount.
    """
    text = pl.col("x")
    return values.to_frame("x").select(pl.any_horizontal(text.str.contains(p) for p in _INEXACT)).to_series()


def _lowest(text: pl.Expr) -> pl.Expr:
    """Reduce a price to the lowest amount in it: the first of a range, without `from` and `/kg`."""
    text = text.str.replace(_FROM, "").str.replace(_PER_UNIT, "")
    return text.str.replace(_RANGE, "$1").str.replace(_TIGHT_RANGE, "$1")


def _bare(text: pl.Expr) -> pl.Expr:
    """Strip everything but digits and signs: blanks, apostrophes, currencies, `,-` at the end."""
    text = _lowest(text)
    text = text.str.replace_all(r"[\s'’]", "")
    text = text.str.replace(rf"^([+-]?){_CURRENCY}", "$1").str.replace(rf"{_CURRENCY}$", "")
    text = text.str.replace(r"[.,][-–—]+$", "").str.replace(r"^(\d.*)-$", "-$1")
    return text.str.replace(r"^\((\d.*)\)$", "-$1")


def decimal_sign(values: pl.Series) -> Decimal:
    """Infer the decimal sign of a column from its unambiguous values.

    Without any, a sign before three digits is a group separator, unless a number of four digits has none:
    prices have two decimals or none.

    Args:
        values: the column, as text.

    Returns:
        `dot` or `comma`; `auto` where no value has a sign at all.
    """
    text = pl.col("x")

    def count(pattern: str) -> pl.Expr:
        return text.str.contains(pattern).sum()

    frame = values.to_frame("x").select(_bare(text))
    tallied = frame.select(
        (count(_DECIMAL_COMMA) - count(_COMMA_OR_GROUP).cast(pl.Int64) + count(_DOT_GROUPS)).alias("comma"),
        (count(_DECIMAL_DOT) - count(_DOT_OR_GROUP).cast(pl.Int64) + count(_COMMA_GROUPS)).alias("dot"),
        count(_COMMA_OR_GROUP).alias("either_comma"),
        count(_DOT_OR_GROUP).alias("either_dot"),
        count(_UNGROUPED).alias("ungrouped"),
    )
    found = tallied.row(0, named=True)
    if found["comma"] or found["dot"]:
        return Decimal.comma if found["comma"] > found["dot"] else Decimal.dot
    if not found["either_comma"] and not found["either_dot"]:
        return Decimal.auto
    groups_by_dot = found["either_dot"] > found["either_comma"]
    return Decimal.comma if groups_by_dot != bool(found["ungrouped"]) else Decimal.dot


def sign_of(frame: pl.LazyFrame, name: str, setting: Decimal) -> Decimal:
    """Return the decimal sign of a text column: the setting, or inferred.

    Args:
        frame: the table, as the files have it.
        name: its column.
        setting: `data.decimal`.
    """
    if setting is not Decimal.auto or frame.collect_schema()[name] != pl.String:
        return setting
    signed = frame.select(name).head(_ROWS).filter(pl.col(name).str.contains(r"[.,]"))
    return decimal_sign(signed.head(_SAMPLE).collect(engine="streaming").to_series())


def _written(values: pl.Series, sign: Decimal) -> pl.Series:
    """Parse text that is not a plain number, [values]; null where it cannot be parsed."""
    text = pl.col("text")
    without_dots = text.str.replace_all(".", "", literal=True)
    without_commas = text.str.replace_all(",", "", literal=True)
    comma = sign is Decimal.comma
    plain = (
        pl.when(text.str.contains(_COMMA_OR_GROUP))
        .then(text.str.replace(",", ".", literal=True) if comma else without_commas)
        .when(text.str.contains(_DOT_OR_GROUP))
        .then(without_dots if comma else text)
        .when(text.str.contains(_DOT_GROUPS))
        .then(without_dots)
        .when(text.str.contains(_DECIMAL_COMMA))
        .then(without_dots.str.replace(",", ".", literal=True))
        .when(text.str.contains(f"{_DECIMAL_DOT}|{_COMMA_GROUPS}"))
        .then(without_commas)
        .otherwise(text)
    )
    frame = values.alias("text").to_frame().select(_bare(text))
    return frame.select(plain.cast(pl.Float64, strict=False)).to_series()


def read_numbers(values: pl.Series, sign: Decimal) -> pl.Series:
    """Parse a text column as finite numbers, [values]; null where it cannot be parsed."""
    read = values.str.strip_chars().cast(pl.Float64, strict=False)
    if sign is Decimal.comma:
        read = read.set(values.str.contains(".", literal=True), None)
    # Most values are plain numbers and need no pattern.
    rest = (read.is_null() & values.is_not_null()).arg_true()
    if len(rest):
        read = read.scatter(rest, _written(values.gather(rest), sign))
    return read.to_frame("x").select(pl.when(pl.col("x").is_finite()).then(pl.col("x"))).to_series()


def number(name: str, dtype: pl.DataType, sign: Decimal = Decimal.dot) -> pl.Expr:
    """Parse a finite number; text may have a currency and groups of digits (`R$ 1.299,00`).

    Args:
        name: the column.
        dtype: its type.
        sign: decimal sign of ambiguous values such as `1.299` and `12,500`.
    """
    column = pl.col(name)
    if dtype == pl.String:
        return column.map_batches(
            lambda values: read_numbers(values, sign), return_dtype=pl.Float64, is_elementwise=True
        )
    value = column.cast(pl.Float64, strict=False)
    return pl.when(value.is_finite()).then(value)
