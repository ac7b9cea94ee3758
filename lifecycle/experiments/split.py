"""Sample-ratio mismatch: whether arms have as many units as their shares say.

A mismatch means that units were lost or moved, and those that are left are no longer alike: nothing else in
the report can be trusted (Fabijan et al., "Diagnosing Sample Ratio Mismatch in Online Controlled
Experiments", KDD 2019).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from scipy.stats import chisquare

MISMATCH: Final = 0.001
"""p below which the split is broken."""
_FEWEST: Final = 5
"""Expected units of the smallest arm from which on chi-square is exact enough."""


def split_check(units: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, Any]:
    """Return the test of a split: `expected` units, `chi_square`, `p_value` (None if too few), `broken`.

    Args:
        units: of every arm.
        shares: of the same arms, above 0; only their ratios count.
    """
    whole, total = sum(shares.values()), sum(units.get(arm, 0) for arm in shares)
    expected = {arm: total * share / whole for arm, share in shares.items()}
    found: dict[str, Any] = {
        "units": {arm: units.get(arm, 0) for arm in shares},
        "expected": expected, "chi_square": None, "p_value": None, "broken": False,
    }  # fmt: skip
    if len(shares) > 1 and min(expected.values()) >= _FEWEST:
        statistic, p_value = chisquare([units.get(arm, 0) for arm in shares], list(expected.values()))
        found |= {
            "chi_square": float(statistic),
            "p_value": float(p_value),
            "broken": bool(p_value < MISMATCH),
        }
    return found


def split_checks(parts: Mapping[str, Mapping[str, int]], shares: Mapping[str, float]) -> dict[str, Any]:
    """Return the tests of many parts, such as days, broken below `MISMATCH` divided by their number."""
    found = {name: split_check(units, shares) for name, units in parts.items()}
    tested = [part for part in found.values() if part["p_value"] is not None]
    for part in tested:
        part["broken"] = part["p_value"] < MISMATCH / len(tested)
    return found
