"""Metrics of an experiment, as values of its units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from lifecycle.experiments.estimates import Doubles, Sample
from lifecycle.experiments.novelty import DayRows
from lifecycle.experiments.units import ARM, BEFORE, DAY, DAY_US, FIRST, MEASURES, UNIT, Units

Integers = npt.NDArray[np.int64]

TOPS: Final = {
    "ctr": "clicks", "clicks_per_unit": "clicks", "carts_per_unit": "carts", "conversion": "purchases",
    "purchases_per_unit": "purchases", "value_per_unit": "value",
    "list_purchases_per_unit": "list_purchases", "list_value_per_unit": "list_value",
}  # fmt: skip
"""Measure that each metric counts."""
WORDS: Final = {
    "ctr": "clicks per impression",
    "clicks_per_unit": "clicks on the arm's lists, per unit",
    "carts_per_unit": "items put into a cart, per unit",
    "conversion": "share of units that bought",
    "purchases_per_unit": "items bought, per unit",
    "value_per_unit": "value of what was bought, per unit",
    "list_purchases_per_unit": "items bought from the arm's lists, per unit",
    "list_value_per_unit": "value of what was bought from the arm's lists, per unit",
}
OF_VALUE: Final = ("value_per_unit", "list_value_per_unit")


def _sums(at: Integers, values: Doubles, size: int) -> Doubles:
    return np.bincount(at, values, size).astype(np.float64)


@dataclass(frozen=True)
class Measured:
    """What units did, in arrays: the source of every metric."""

    units: pl.DataFrame
    """As `Units.units`, in the order of the arrays."""
    totals: dict[str, Doubles]
    """Of each measure, [units]."""
    rows: Integers
    """Number of the unit of each day, [days]."""
    dates: Integers
    """Day since 1970, [days]."""
    daily: dict[str, Doubles]
    """Of each measure, [days]."""
    adjust: bool
    """Whether covariates from before the experiment are used."""

    @classmethod
    def of(cls, found: Units, winsorise: float | None, adjust: bool) -> Measured:
        """Return the arrays; a unit's value above a quantile of the spending units' is cut off."""
        units = found.units.with_row_index("row")
        days = found.days.join(units.select(UNIT, "row"), on=UNIT)
        rows, dates = (days[name].to_numpy().astype(np.int64) for name in ("row", DAY))
        daily = {name: days[name].to_numpy().astype(np.float64) for name in MEASURES}
        if winsorise is not None:
            for name in ("value", "list_value"):
                total = _sums(rows, daily[name], len(units))
                if (spent := total[total > 0]).size:
                    scale = np.minimum(1.0, np.quantile(spent, winsorise) / np.maximum(total, 1e-12))
                    daily[name] = daily[name] * scale[rows]
        totals = {name: _sums(rows, values, len(units)) for name, values in daily.items()}
        return cls(found.units, totals, rows, dates, daily, adjust)

    @cached_property
    def arm(self) -> npt.NDArray[np.object_]:
        """Return the arm of each unit."""
        return self.units[ARM].to_numpy()

    @cached_property
    def before(self) -> Doubles:
        """Return the covariates, [units, covariates]."""
        return self.units.select(f"before_{name}" for name in BEFORE).to_numpy().astype(np.float64)

    @cached_property
    def begun(self) -> Integers:
        """Return the day since 1970 of each unit's first exposure."""
        return np.asarray(self.units[FIRST].to_numpy() // DAY_US, dtype=np.int64)

    @cached_property
    def busiest(self) -> Doubles:
        """Return each unit's most events on one day."""
        most = np.zeros(len(self.units))
        np.maximum.at(most, self.rows, self.daily["events"])
        return most

    def without(self, left_out: npt.NDArray[np.bool_]) -> Measured:
        """Return the same without some units."""
        kept = ~left_out
        number, stay = np.cumsum(kept) - 1, kept[self.rows]
        return Measured(
            self.units.filter(pl.Series(kept)),
            {name: values[kept] for name, values in self.totals.items()},
            number[self.rows[stay]], self.dates[stay],
            {name: values[stay] for name, values in self.daily.items()}, self.adjust,
        )  # fmt: skip

    def sample(
        self, metric: str, chosen: npt.NDArray[np.bool_], totals: dict[str, Doubles] | None = None
    ) -> Sample:
        """Return a metric's values of some units.

        Args:
            metric: its name.
            chosen: which units, [units].
            totals: other measures than those of the whole time.
        """
        totals = self.totals if totals is None else totals
        top = totals[TOPS[metric]][chosen]
        if metric == "conversion":
            top = (top > 0).astype(np.float64)
        bottom = totals["impressions"][chosen] if metric == "ctr" else None
        return Sample(top, bottom, self.before[chosen] if self.adjust else None)

    def until(self, metric: str, date: int) -> dict[str, Doubles]:
        """Return the measures that a metric needs, counted up to the end of a day."""
        past = self.dates <= date
        return {
            name: _sums(self.rows[past], self.daily[name][past], len(self.units))
            for name in {TOPS[metric], "impressions"}
        }

    def day_rows(self, metric: str, chosen: npt.NDArray[np.bool_]) -> DayRows:
        """Return active days of some units: the metric's amount per impression, or per active day."""
        stay = chosen[self.rows] & (self.daily["impressions"] > 0)
        top = self.daily[TOPS[metric]][stay]
        if metric == "conversion":
            top = (top > 0).astype(np.float64)
        bottom = self.daily["impressions"][stay] if metric == "ctr" else np.ones(len(top))
        return DayRows(self.rows[stay], self.dates[stay] - self.begun[self.rows[stay]], top, bottom)
