"""What follows from a report, in words: ship, go on, stop, or do not trust."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from conf.experiment_report import ExperimentReportConfig

SHIP: Final = "ship"
GO_ON: Final = "go on"
STOP: Final = "stop"
DO_NOT_TRUST: Final = "do not trust"
EXIT_CODES: Final = {SHIP: 0, GO_ON: 20, STOP: 21, DO_NOT_TRUST: 22}

_MOST_MIXED: Final = 0.05
"""Share of units in two arms above which sticky assignment has failed."""
_MOST_NOT_SHOWN: Final = 0.5


def verdict_of(config: ExperimentReportConfig, report: Mapping[str, Any]) -> dict[str, Any]:
    """Return `verdict`, its `reasons`, the `arm` to ship or None, and the verdict of each of `arms`."""
    if faults := list(_faults(config, report)):
        return {"verdict": DO_NOT_TRUST, "reasons": faults, "arm": None, "arms": {}}
    arms = {arm: _of_arm(config, report, arm) for arm in report["arms"]}
    shipped = [arm for arm, (verdict, _) in arms.items() if verdict == SHIP]
    best = max(shipped, key=lambda arm: report["effects"][arm][config.primary]["lift"], default=None)
    if best is not None:
        verdict = SHIP
    else:
        verdict = STOP if all(found == STOP for found, _ in arms.values()) else GO_ON
    chosen = [best] if best is not None else list(arms)
    return {
        "verdict": verdict, "reasons": [f"{arm}: {arms[arm][1]}" for arm in chosen], "arm": best,
        "arms": {arm: {"verdict": found, "reason": reason} for arm, (found, reason) in arms.items()},
    }  # fmt: skip


def _faults(config: ExperimentReportConfig, report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what makes every figure of the report worthless."""
    totals = report["totals"]
    units = sum(arm["units"] for arm in totals.values())
    for name, arm in totals.items():
        if not arm["units"]:
            yield f"arm '{name}' has no unit: check that its lists are shown and that their tokens come back"
    if report["unknown_arms"]:
        yield (
            f"the events have arms that the experiment does not: {', '.join(report['unknown_arms'])}; "
            "if arms were renamed or added, read the time since then alone (start=TIME)"
        )
    split = report["split"]
    if split and split["broken"]:
        yield (
            f"sample-ratio mismatch (p = {split['p_value']:.2g}): units are "
            f"{_counts(split['units'])}, expected {_counts(split['expected'])}; find out which units are "
            "lost before reading on"
        )
    elif split:
        for key, words in (("split_by_day", "on"), ("split_by_surface", "on surface")):
            broken = [name for name, part in report[key].items() if part["broken"]]
            if broken:
                yield (
                    f"sample-ratio mismatch {words} {', '.join(broken[:5])}; "
                    "if shares were changed, read the time since then alone (start=TIME)"
                )
    mixed = report["units_in_two_arms"]
    if mixed > _MOST_MIXED * (units + mixed):
        yield f"{mixed:,} of {units + mixed:,} units saw two arms: the assignment is not sticky"
    if units and report["units_not_shown_first"] > _MOST_NOT_SHOWN * units:
        yield (
            f"{report['units_not_shown_first']:,} of {units:,} units are known by a click or purchase alone, "
            "which an arm itself changes; record an `impression` for each item shown"
        )
    if config.primary in report["missing"]:
        yield (
            f"{config.primary}: no purchase has a value; give a catalogue with prices (artifacts= or "
            "items=), or events with a column `value`"
        )


def _counts(units: Mapping[str, float]) -> str:
    return ", ".join(f"{arm} {count:,.0f}" for arm, count in units.items())


def _of_arm(config: ExperimentReportConfig, report: Mapping[str, Any], arm: str) -> tuple[str, str]:
    """Return an arm's verdict and its reason."""
    effects, horizon = report["effects"][arm], report["horizon"][arm]
    row = effects[config.primary]
    fewest = min(report["totals"][name]["units"] for name in (arm, report["control"]))
    if fewest < config.minimum_units:
        return (
            GO_ON,
            f"an arm has {fewest:,} units; no statement below {config.minimum_units:,} (minimum_units)",
        )
    if row is None or row["lift_low"] is None:
        return (
            GO_ON,
            f"{config.primary} cannot be estimated yet: no unit differs from another, or control has none",
        )
    waiting = (
        f"about {horizon['units_needed']:,} units ({horizon['days_needed']:,.0f} days) "
        f"find {config.minimum_effect:.0%}"
    )
    if config.decision == "fixed" and not _at_horizon(report, horizon):
        end = report["period"]["planned_end"]
        return (
            GO_ON,
            f"not yet: the horizon is {end or waiting}, and a fixed horizon allows one look, there",
        )
    interval = f"{config.primary} {row['lift']:+.1%} ({row['lift_low']:+.1%} to {row['lift_high']:+.1%})"
    fallen = [
        name for name in config.guards
        if name != config.primary and (guard := effects.get(name)) and guard["p_corrected"] is not None
        and guard["p_corrected"] < 1 - config.level and guard["difference"] < 0
    ]  # fmt: skip
    if fallen:
        return STOP, f"{', '.join(fallen)} fell; {interval}"
    if row["high"] < 0:
        return STOP, f"worse: {interval}"
    if row["low"] > 0:
        if report["period"]["days"] < config.minimum_days:
            return GO_ON, f"better, but on fewer than {config.minimum_days} days (minimum_days): {interval}"
        return SHIP, f"better: {interval}"
    if config.decision == "fixed":
        return STOP, f"no effect found at the horizon: {interval}"
    if row["lift_high"] < config.minimum_effect:
        return STOP, f"an effect of {config.minimum_effect:.0%} (minimum_effect) is ruled out: {interval}"
    return GO_ON, f"undecided: {interval}; {waiting}"


def _at_horizon(report: Mapping[str, Any], horizon: Mapping[str, Any]) -> bool:
    if report["period"]["planned_end"]:
        return bool(report["period"]["ended"])
    return bool(horizon["units"] >= horizon["units_needed"])
