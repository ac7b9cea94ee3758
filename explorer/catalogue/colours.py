"""Colours of the items on the map: by an attribute, by sales, by how new they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from explorer.items import shown_value
from features.data.dataset import FloatArray
from features.data.statistics import Statistics

CATEGORIES: Final = 8
"""Values of an attribute that have a colour of their own; the others share one."""
STEPS: Final = 7
"""Steps of a scale."""
NONE: Final = 0
"""Code of items without a value."""
OTHER: Final = CATEGORIES + 1
"""Code of the values without a colour of their own."""
SALES: Final = "sales"
NOVELTY: Final = "novelty"

CodeArray = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Entry:
    """A line of the legend."""

    code: int
    label: str
    count: int
    """Items of this colour."""


@dataclass(frozen=True)
class Colouring:
    """The colour of every item."""

    name: str
    """`sales`, `novelty`, or `attribute:` and a column's name."""
    title: str
    scale: bool
    """Whether the codes are steps of a scale; otherwise they stand for values."""
    codes: CodeArray
    """[items] 0 without a value; 1 to 7 are steps, lowest first (newest last); 1 to 8 values, most frequent
    first, 9 others."""
    legend: tuple[Entry, ...]


def choices(frame: pl.DataFrame, attributes: list[str]) -> list[tuple[str, str]]:
    """Return name and title of every colouring that a catalogue has.

    Left out are texts that hardly repeat, such as titles and ids, lists, and columns with one value.
    """
    found = [(SALES, "Sales"), (NOVELTY, "Days since the first event")]
    for name in attributes:
        column = frame[name]
        if column.dtype.is_numeric() or isinstance(column.dtype, (pl.Date, pl.Datetime)):
            usable = column.n_unique() > 1
        else:
            text = isinstance(column.dtype, (pl.String, pl.Categorical, pl.Enum, pl.Boolean))
            values = column.n_unique() if text else 0
            usable = 1 < values <= max(len(frame) // 5, 2)
        if usable:
            found.append((f"attribute:{name}", name.replace("_", " ").capitalize()))
    return found


def colour(name: str, title: str, frame: pl.DataFrame, statistics: Statistics) -> Colouring:
    """Return a colouring of that `choices` name.

    Args:
        name: of the colouring.
        title: of the colouring.
        frame: the catalogue's table.
        statistics: of its items.

    """
    if name == SALES:
        return _scaled(name, title, statistics.count, statistics.count > 0, _whole, log=True, none="no event")
    if name == NOVELTY:
        days = days_on_sale(statistics)
        found = _scaled(name, title, days, np.isfinite(days), _whole, log=True, none="no event yet")
        return _reversed(found)  # what is new stands out
    column = frame[name.removeprefix("attribute:")]
    if isinstance(column.dtype, (pl.Date, pl.Datetime)):
        column = column.cast(pl.Datetime("ms"))
        numbers = column.dt.epoch("d").cast(pl.Float64).fill_null(np.nan).to_numpy()
        return _scaled(name, title, numbers, np.isfinite(numbers), _date, log=False)
    if column.dtype.is_numeric():
        numbers = column.cast(pl.Float64).fill_null(np.nan).to_numpy()
        known = np.isfinite(numbers)
        low = numbers[known].min() if known.any() else 0.0
        return _scaled(name, title, numbers, known, _number, log=bool(low >= 0))
    return _categorical(name, title, column.cast(pl.String))


def days_on_sale(statistics: Statistics) -> npt.NDArray[np.float64]:
    """Return days from each item's first event to the statistics' end, at least 1; NaN without an event."""
    width = int(statistics.demand_calendar[1])
    days = np.maximum(width - 1 - statistics.demand_first, 1).astype(np.float64)
    days[statistics.demand_first >= width] = np.nan
    return days


def _categorical(name: str, title: str, column: pl.Series) -> Colouring:
    counts = (
        column.drop_nulls()
        .value_counts(name="number")
        .sort(["number", column.name], descending=[True, False])
    )
    top = counts[column.name].head(CATEGORIES).to_list()
    code_of = {value: code for code, value in enumerate(top, 1)}
    codes = (
        column.replace_strict(code_of, default=OTHER, return_dtype=pl.UInt8)
        if code_of
        else pl.Series(np.full(len(column), OTHER, dtype=np.uint8))
    )
    array = np.where(column.is_null().to_numpy(), NONE, codes.fill_null(NONE).to_numpy()).astype(np.uint8)
    numbers = np.bincount(array, minlength=OTHER + 1)
    legend = [
        Entry(code, shown_value(value) or "(empty)", int(numbers[code])) for value, code in code_of.items()
    ]
    if numbers[OTHER]:
        legend.append(Entry(OTHER, f"{len(counts) - len(top):,} other values", int(numbers[OTHER])))
    if numbers[NONE]:
        legend.append(Entry(NONE, "no value", int(numbers[NONE])))
    return Colouring(name, title, False, array, tuple(legend))


def _scaled(
    name: str,
    title: str,
    values: npt.NDArray[np.float64] | FloatArray,
    known: npt.NDArray[np.bool_],
    shown: Callable[[float], str],
    *,
    log: bool,
    none: str = "no value",
) -> Colouring:
    """Return steps of equal width from the lowest to the highest value, of their logarithms where `log`."""
    codes = np.zeros(len(values), dtype=np.uint8)
    legend = []
    if known.any():
        numbers = values[known].astype(np.float64)
        edges = _edges(float(numbers.min()), float(numbers.max()), log)
        codes[known] = 1 + np.searchsorted(edges[1:-1], numbers, side="right")
        counts = np.bincount(codes, minlength=STEPS + 1)
        legend = [
            Entry(code, f"{shown(edges[code - 1])} to {shown(edges[code])}", int(counts[code]))
            for code in range(1, len(edges))
        ]
    if not known.all():
        legend.append(Entry(NONE, none, int((~known).sum())))
    return Colouring(name, title, True, codes, tuple(legend))


def _reversed(found: Colouring) -> Colouring:
    """Return a scale whose lowest step has the colour of the highest."""
    steps = max((entry.code for entry in found.legend), default=0)
    codes = np.where(found.codes == NONE, NONE, steps + 1 - found.codes).astype(np.uint8)
    turned = [replace(e, code=steps + 1 - e.code) if e.code != NONE else e for e in found.legend]
    return replace(found, codes=codes, legend=tuple(turned))


def _edges(low: float, high: float, log: bool) -> npt.NDArray[np.float64]:
    """Return the edges of the steps, lowest first; one step where all values are equal."""
    if low == high:
        return np.array([low, high])
    if not log:
        return np.linspace(low, high, STEPS + 1)
    edges = np.expm1(np.linspace(np.log1p(low), np.log1p(high), STEPS + 1))
    edges[0], edges[-1] = low, high
    return edges


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _number(value: float) -> str:
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _date(days: float) -> str:
    return str(np.datetime64(round(days), "D"))
