"""How far an estimate may be from the truth, and how many units a decision needs.

`fixed`: one look, at a horizon that is set before. Looking every day and stopping at the first p < .05
finds an effect that is not there in far more than 5 of 100 experiments.

`sequential`: the interval of a normal mixture, which holds at all looks together (Robbins 1970; the mixture
sequential probability ratio test of Johari et al., "Peeking at A/B Tests", KDD 2017; as asymptotic confidence
sequence: Waudby-Smith et al., Annals of Statistics 2024). With V the variance of the estimate and tau the
standard deviation of the mixture, which is the smallest effect of interest, its half width is

    sqrt(V (V + tau²) / tau² · (2 log(1 / alpha) + log((V + tau²) / V)))
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm, t

from lifecycle.experiments.libraries import statsmodels

_LOG_UNITS: Final = (-50.0, 100.0)
"""Between which the natural logarithm of a number of units is sought: wider than any effect needs."""


@dataclass(frozen=True)
class Boundary:
    """A rule for intervals."""

    decision: str
    """`sequential` or `fixed`."""
    alpha: float
    """Chance of an interval that misses, over all looks or at the one look."""
    tau: float
    """Smallest relative lift of interest."""

    def reach(self, lift_error: float | None, freedom: float) -> float | None:
        """Return the half width of an interval in standard errors; None where there is none.

        Args:
            lift_error: standard error of the relative lift of the metric that decides.
            freedom: degrees of freedom.
        """
        if self.decision == "fixed":
            return float(t.ppf(1 - self.alpha / 2, freedom))
        if lift_error is None or lift_error <= 0:
            return None
        ratio = (self.tau / lift_error) ** 2
        return float(np.sqrt((1 + 1 / ratio) * (-2 * np.log(self.alpha) + np.log1p(ratio))))

    def p_value(self, z: float, lift_error: float | None, freedom: float) -> float | None:
        """Return the p value of an estimate `z` standard errors from 0, valid at every look or at one."""
        if self.decision == "fixed":
            return float(2 * t.sf(abs(z), freedom))
        if lift_error is None or lift_error <= 0:
            return None
        ratio = (self.tau / lift_error) ** 2
        return float(min(1.0, np.exp(0.5 * np.log1p(ratio) - 0.5 * z**2 * ratio / (1 + ratio))))


def units_needed(
    boundary: Boundary, lift_error: float, units: tuple[int, int], power: float, effect: float
) -> int:
    """Return the units of both arms with which an effect of this size is found with this chance.

    Args:
        boundary: of the decision.
        lift_error: standard error of the relative lift at present.
        units: of the arm and of control at present.
        power: the chance.
        effect: relative lift.
    """
    arm, control = units

    def short(log_units: float) -> float:
        error = lift_error * np.sqrt((arm + control) / np.exp(log_units))
        return float(((boundary.reach(error, np.inf) or 0.0) + norm.ppf(power)) * error - effect)

    return int(np.ceil(np.exp(brentq(short, *_LOG_UNITS))))


def corrected(p_values: list[float | None], method: str) -> list[float | None]:
    """Return p values corrected for their number, by Holm or Benjamini and Hochberg; None stays None."""
    known = [p for p in p_values if p is not None]
    if not known:
        return p_values
    name = {"holm": "holm", "bh": "fdr_bh"}[method]
    found = iter(statsmodels("stats.multitest").multipletests(known, method=name)[1])
    return [None if p is None else float(next(found)) for p in p_values]
