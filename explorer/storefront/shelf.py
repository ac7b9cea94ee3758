"""Filters of the shelf: attributes with few values, and price bands; as filter expressions of the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import polars as pl

from features.data import schema
from ranking.catalogue.filter_language import AttributeKind, attribute_kinds

MOST_FACETS: Final = 4
MOST_VALUES: Final = 60
"""Values of an attribute up to which it is a filter of the shelf."""
LEAST_COVERED: Final = 0.5
"""Smallest share of items that have a value."""
BANDS: Final = 4
"""Price bands, with about equally many items each."""


@dataclass(frozen=True)
class Facet:
    """One filter of the shelf."""

    name: str
    """The attribute."""
    values: tuple[tuple[str, str], ...]
    """What an address holds, and what is shown with the number of items."""


def facets(frame: pl.DataFrame, left_out: Sequence[str | None] = ()) -> list[Facet]:
    """Return the filters that a catalogue allows, price last.

    Args:
        frame: the catalogue's items.
        left_out: attributes that are no filters: titles, pictures.

    """
    found: list[Facet] = []
    for name, kind in attribute_kinds(frame.schema).items():
        if name in left_out or name in (schema.ITEM_ID, schema.PRICE) or len(found) == MOST_FACETS:
            continue
        if kind not in (AttributeKind.string, AttributeKind.boolean):
            continue
        counts = frame[name].drop_nulls().cast(pl.String).value_counts(sort=True)
        covered = int(counts["count"].sum()) >= LEAST_COVERED * frame.height
        if not covered or not 2 <= counts.height <= MOST_VALUES:
            continue
        pairs = sorted(counts.iter_rows(), key=lambda pair: (-pair[1], pair[0]))
        found.append(Facet(name, tuple((value, f"{value} ({count:,})") for value, count in pairs)))
    price = price_facet(frame)
    return [*found, price] if price is not None else found


def price_facet(frame: pl.DataFrame) -> Facet | None:
    """Return the filter by price bands; None without prices, or where nearly all are the same."""
    if schema.PRICE not in frame.columns or not frame.schema[schema.PRICE].is_numeric():
        return None
    prices = frame[schema.PRICE].cast(pl.Float64).drop_nulls().drop_nans()
    if prices.is_empty():
        return None
    cuts = [round(float(prices.quantile(i / BANDS, "nearest") or 0.0), 2) for i in range(1, BANDS)]
    cuts = list(dict.fromkeys(cuts))
    bounds = [None, *cuts, None]
    values = []
    for low, high in zip(bounds[:-1], bounds[1:], strict=True):
        inside = pl.lit(True) if low is None else pl.col(schema.PRICE) >= low
        inside = inside if high is None else inside & (pl.col(schema.PRICE) < high)
        count = prices.to_frame(schema.PRICE).filter(inside).height
        if count:
            written = f"{'' if low is None else f'{low:g}'}-{'' if high is None else f'{high:g}'}"
            values.append((written, f"{_band(low, high)} ({count:,})"))
    return Facet(schema.PRICE, tuple(values)) if len(values) > 1 else None


def _band(low: float | None, high: float | None) -> str:
    if low is None:
        return f"below {high:,.2f}"
    return f"{low:,.2f} and more" if high is None else f"{low:,.2f} to {high:,.2f}"


def filter_expression(filters: Sequence[tuple[str, str]], columns: Mapping[str, pl.DataType]) -> str:
    """Return the expression of the chosen filters; empty for none. What is no filter is left out.

    Args:
        filters: names of attributes and values, as `Facet.values` has them.
        columns: types of the catalogue's columns.

    """
    kinds = attribute_kinds(columns)
    tests = []
    for name, value in filters:
        kind, quoted = kinds.get(name), f"`{name}`"
        if kind is None or "`" in name:
            continue
        if name == schema.PRICE:
            low, _, high = value.partition("-")
            tests += [f"{quoted} >= {low}"] if _is_number(low) else []
            tests += [f"{quoted} < {high}"] if _is_number(high) else []
        elif kind is AttributeKind.boolean:
            tests.append(quoted if value == "true" else f"NOT {quoted}")
        elif kind is AttributeKind.string:
            escaped = value.replace("\\", "\\\\").replace('"', '\\"')
            tests.append(f'{quoted} = "{escaped}"')
    return " AND ".join(tests)


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isascii() and text.replace(".", "", 1).isdigit()
