"""Whether an effect fades: by day since a unit's first exposure, and for new and returning units.

The effect of day d is the difference of a ratio: the metric's amount on that day per impression (`ctr`), or
per unit that was active then. The trend is the slope of these effects over the days, weighted by their
precision; its variance is over units, as the days of one unit are not independent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_FEWEST_UNITS: Final = 50
"""Active units of each arm that a day needs."""
_FEWEST_DAYS: Final = 3


@dataclass(frozen=True)
class DayRows:
    """Active days of an arm's units, each field [rows]."""

    unit: Integers
    """Number of the unit, from 0."""
    day: Integers
    """Days since the unit's first exposure."""
    top: Doubles
    bottom: Doubles


def by_day(arm: DayRows, control: DayRows, alpha: float) -> dict[str, Any]:
    """Return `days`, a row of effect and interval for each, and the `slope` per day with its `p_value`.

    Args:
        arm: of the arm.
        control: of the arm that it is compared with.
        alpha: of the intervals.
    """
    most = int(max(arm.day.max(initial=-1), control.day.max(initial=-1))) + 1
    sides = [_side(rows, most) for rows in (arm, control)]
    kept = [
        day
        for day in range(most)
        if all(side.active[day] >= _FEWEST_UNITS and side.variance[day] > 0 for side in sides)
    ]
    reach = norm.ppf(1 - alpha / 2)
    ours, theirs = sides
    days = []
    for day in kept:
        difference = float(ours.ratio[day] - theirs.ratio[day])
        error = float(np.sqrt(ours.variance[day] + theirs.variance[day]))
        days.append(
            {
                "day": day, "units": int(ours.active[day] + theirs.active[day]),
                "control": float(theirs.ratio[day]), "difference": difference,
                "low": difference - reach * error, "high": difference + reach * error,
            }
        )  # fmt: skip
    found: dict[str, Any] = {"days": days, "slope": None, "slope_error": None, "p_value": None}
    if len(kept) >= _FEWEST_DAYS:
        weight = _slope_weights(np.array(kept), ours.variance[kept] + theirs.variance[kept])
        slope = float(weight @ (ours.ratio[kept] - theirs.ratio[kept]))
        variance = sum(
            _contrast_variance(rows, side, kept, weight)
            for rows, side in zip((arm, control), sides, strict=True)
        )
        if variance > 0:
            error = float(np.sqrt(variance))
            found |= {"slope": slope, "slope_error": error, "p_value": float(2 * norm.sf(abs(slope / error)))}
    return found


@dataclass(frozen=True)
class _Side:
    """An arm's days, each field [days]."""

    ratio: Doubles
    variance: Doubles
    bottom: Doubles
    active: Doubles


def _side(rows: DayRows, most: int) -> _Side:
    top = _sums(rows.day, rows.top, most)
    bottom = _sums(rows.day, rows.bottom, most)
    safe = np.maximum(bottom, 1e-12)
    ratio = top / safe
    influence = (rows.top - ratio[rows.day] * rows.bottom) / safe[rows.day]
    return _Side(
        ratio, _sums(rows.day, influence**2, most), bottom, _sums(rows.day, np.ones(len(rows.day)), most)
    )


def _sums(at: Integers, values: Doubles, size: int) -> Doubles:
    return np.bincount(at, values, size).astype(np.float64)


def _slope_weights(days: Integers, variance: Doubles) -> Doubles:
    """Return the weights [days] by which effects add up to their slope in a weighted regression."""
    precision = 1 / variance
    centred = days - float(precision @ days) / float(precision.sum())
    weighted = precision * centred
    return np.asarray(weighted / float(weighted @ days), dtype=np.float64)


def _contrast_variance(rows: DayRows, side: _Side, kept: list[int], weight: Doubles) -> float:
    full = np.zeros(len(side.ratio))
    full[kept] = weight
    safe = np.maximum(side.bottom, 1e-12)
    influence = full[rows.day] * (rows.top - side.ratio[rows.day] * rows.bottom) / safe[rows.day]
    return float((_sums(rows.unit, influence, int(rows.unit.max(initial=0)) + 1) ** 2).sum())
