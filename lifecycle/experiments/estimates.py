"""The effect of an arm: difference and relative lift against control, with standard errors.

A metric is a mean over units, or a ratio of two sums over units, such as clicks per impression. Units are
drawn to arms independently, impressions are not, so a ratio's variance is that of the unit's influence on
it (the delta method: Deng, Knoblich and Lu, "Applying the Delta Method in Metric Analytics", KDD 2018).

The variance is reduced by what units did before the experiment (CUPED: Deng, Xu, Kohavi and Walker, WSDM
2013): theta is the pooled regression of a unit's influence on its covariates, within arms, and the part of
the difference that the covariates' chance difference explains is taken away. The covariates are from before
the first exposure, so that their expected difference is 0 and the estimate stays unbiased.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from lifecycle.experiments.libraries import statsmodels

Doubles = npt.NDArray[np.float64]
_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class Sample:
    """A metric's values of an arm's units."""

    top: Doubles
    """Numerator, or the value itself, [units]."""
    bottom: Doubles | None = None
    """Denominator of a ratio, [units]; None for a mean."""
    before: Doubles | None = None
    """Covariates from before the experiment, [units, covariates]."""

    @property
    def units(self) -> int:
        """Return the number of units."""
        return len(self.top)

    @property
    def value(self) -> float | None:
        """Return the metric, None without units or with a denominator of 0."""
        below = float(self.units if self.bottom is None else self.bottom.sum())
        return float(self.top.sum()) / below if below else None

    def influence(self) -> Doubles:
        """Return values [units] whose mean is the metric and whose variance of the mean is the metric's."""
        if self.bottom is None:
            return self.top
        value = self.value or 0.0
        return np.asarray(value + (self.top - value * self.bottom) / self.bottom.mean(), dtype=np.float64)


@dataclass(frozen=True)
class Effect:
    """An arm's effect against control."""

    value: float
    """The arm's metric, after the reduction of variance."""
    control: float
    difference: float
    error: float
    """Standard error of the difference."""
    freedom: float
    """Degrees of freedom of that error (Welch and Satterthwaite)."""
    lift: float | None
    """`value / control - 1`; None where control is not above 0."""
    lift_error: float | None
    reduction: float | None
    """Share of the difference's variance that the covariates take away; None without covariates."""


def effect(arm: Sample, control: Sample) -> Effect | None:
    """Return the effect, or None where an arm has fewer than two units or a ratio no denominator.

    Without covariates and denominators, difference, error and freedom are those of Welch's t test.
    """
    if min(arm.units, control.units) < 2 or arm.value is None or control.value is None:
        return None
    treated, compared = arm.influence(), control.influence()
    plain = float(treated.var(ddof=1) / len(treated) + compared.var(ddof=1) / len(compared))
    explained, other = _explained(treated, compared, arm.before, control.before)
    share = len(treated) / (len(treated) + len(compared))
    shift = float(explained.mean() - other.mean())
    value = float(treated.mean()) - (1 - share) * shift
    base = float(compared.mean()) + share * shift
    parts = (
        float((treated - explained).var(ddof=1) / len(treated)),
        float((compared - other).var(ddof=1) / len(compared)),
    )
    variance = sum(parts)
    if variance <= (_ROUNDING * max(abs(value), abs(base))) ** 2:  # every unit alike, but for rounding
        parts, variance = (0.0, 0.0), 0.0
    lift, lift_error = None, None
    if base > 0:  # influence of each unit on value / base, by the delta method
        up, down = 1 / base, value / base**2
        ours = up * (treated - (1 - share) * explained) - down * share * explained
        theirs = up * (1 - share) * other - down * (compared - share * other)
        lift = value / base - 1
        lift_error = float(np.sqrt(ours.var(ddof=1) / len(ours) + theirs.var(ddof=1) / len(theirs)))
        lift_error = lift_error if variance else 0.0
    return Effect(
        value, base, value - base, float(np.sqrt(variance)),
        _freedom(parts, (len(treated), len(compared))), lift, lift_error,
        1 - variance / plain if np.any(explained) and plain > 0 else None,
    )  # fmt: skip


def _freedom(parts: tuple[float, float], units: tuple[int, int]) -> float:
    below = sum(part**2 / (n - 1) for part, n in zip(parts, units, strict=True))
    return sum(parts) ** 2 / below if below > 0 else float(sum(units) - 2)


def _explained(
    treated: Doubles, compared: Doubles, before: Doubles | None, others: Doubles | None
) -> tuple[Doubles, Doubles]:
    """Return what the covariates explain of each unit's influence: zeros without varying covariates."""
    nothing = np.zeros(len(treated)), np.zeros(len(compared))
    if before is None or others is None:
        return nothing
    every = np.concatenate((before, others))
    every = every[:, every.std(axis=0) > 0]
    if every.shape[1] == 0 or len(every) < 10 * (every.shape[1] + 2):
        return nothing
    every = (every - every.mean(axis=0)) / every.std(axis=0)
    count = len(treated)
    inside = np.arange(len(every)) < count
    design = np.column_stack((np.ones(len(every)), inside, every))
    fit = statsmodels("api").OLS(np.concatenate((treated, compared)), design).fit()
    explained = every @ fit.params[2:]
    return explained[:count], explained[count:]
