"""Figures and sentences that the terminal and the page share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lifecycle.experiments.metrics import OF_VALUE

RULES = {
    "sequential": "the intervals hold at every look, so that a look every day is allowed",
    "fixed": "one look, at the horizon: before it nothing is decided",
}


def percent(value: float | None, digits: int = 1) -> str:
    """Return a signed percentage, or a dash."""
    return "–" if value is None else f"{value:+.{digits}%}"


def number(value: float | None) -> str:
    """Return a number with four significant digits, or a dash."""
    return "–" if value is None else f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:,.4g}"


def chance(value: float | None) -> str:
    """Return a p value, or a dash."""
    return "–" if value is None else "< .001" if value < 0.001 else f"{value:.3f}"


def between(low: float | None, high: float | None) -> str:
    """Return an interval of percentages, or a dash."""
    return "–" if low is None or high is None else f"{low:+.1%} to {high:+.1%}"


def split_words(report: Mapping[str, Any]) -> str:
    """Return the outcome of the check of the split."""
    split = report["split"]
    if split is None:
        return "not checked: no shares are known; add experiments=FILE or shares={ARM: SHARE, ...}"
    units = ", ".join(f"{arm} {count:,}" for arm, count in split["units"].items())
    if split["p_value"] is None:
        return f"not checked: too few units ({units})"
    expected = ", ".join(f"{count:,.0f}" for count in split["expected"].values())
    found = "BROKEN" if split["broken"] else "no mismatch"
    return f"{found}: {units} (expected {expected}), p = {chance(split['p_value'])}"


def notes(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a reader has to bear in mind."""
    if report["units_in_two_arms"]:
        yield f"{report['units_in_two_arms']:,} units saw two arms and are left out"
    outliers = sum(report["outliers"]["units"].values())
    if outliers:
        limit = report["outliers"]["most_events_a_day"]
        done = "left out" if report["outliers"]["excluded"] else "kept; exclude_outliers=true leaves them out"
        yield f"{outliers:,} units have more than {limit:,} events on one day ({done})"
    units = sum(arm["units"] for arm in report["totals"].values())
    if units and report["units_not_shown_first"] > 0.05 * units:
        yield f"{report['units_not_shown_first']:,} units have an event of their arm before any impression"
    for arm, totals in report["totals"].items():
        if totals["value_of_top_unit"] > 0.1:
            share = totals["value_of_top_unit"]
            yield f"one unit has {share:.0%} of the value of arm '{arm}'; winsorise=0.99 limits it"
    unpriced = report["purchases_without_value"]
    if report["missing"]:
        yield f"{', '.join(OF_VALUE)}: missing, as no purchase has a value or an item with a price"
    elif unpriced:
        yield f"{unpriced:,} purchases have no value, as their items have no price; they count as 0"
    for arm, found in report["novelty"].items():
        if found["p_value"] is not None and found["p_value"] < 0.05:
            trend = "falls" if found["slope"] < 0 else "rises"
            yield (
                f"the effect of '{arm}' {trend} with the days since a unit's first exposure "
                f"(p = {chance(found['p_value'])})"
            )
        if (p_value := found["new_minus_returning_p_value"]) is not None and p_value < 0.05:
            yield f"the effect of '{arm}' differs between new and returning units (p = {chance(p_value)})"
