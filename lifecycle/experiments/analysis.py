"""Everything that a report says, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from scipy.stats import norm

from conf.experiment_report import METRICS, ExperimentReportConfig
from lifecycle.experiments.boundaries import Boundary, corrected, units_needed
from lifecycle.experiments.estimates import Doubles, effect
from lifecycle.experiments.metrics import OF_VALUE, Measured
from lifecycle.experiments.novelty import by_day
from lifecycle.experiments.plan import Plan
from lifecycle.experiments.recorded import SURFACE
from lifecycle.experiments.split import split_check, split_checks
from lifecycle.experiments.units import ARM, DAY_US, FIRST, Units
from lifecycle.experiments.verdict import verdict_of

_MOST_DATES: Final = 180
_CONCENTRATED: Final = 0.1
"""Share of an arm's value in one unit that is worth a note."""


def analyse(config: ExperimentReportConfig, plan: Plan, found: Units, now_us: int) -> dict[str, Any]:
    """Return the report.

    Args:
        config: the settings.
        plan: the experiment.
        found: its units.
        now_us: the time, microseconds since 1970; whether a planned end has come.
    """
    measured = Measured.of(found, config.winsorise, config.cuped_days > 0)
    outliers = measured.busiest > config.most_events_a_day
    report: dict[str, Any] = {
        "experiment": plan.name, "control": plan.control, "arms": plan.arms, "unit": plan.unit,
        "shares": dict(plan.shares), "primary": config.primary, "guards": list(config.guards),
        "decision": config.decision, "level": config.level, "minimum_effect": config.minimum_effect,
        "correction": config.correction, "cuped_days": config.cuped_days, "winsorise": config.winsorise,
        "units_in_two_arms": found.mixed, "units_not_shown_first": found.not_shown,
        "purchases_without_value": found.unpriced,
        "outliers": {
            "most_events_a_day": config.most_events_a_day, "excluded": config.exclude_outliers,
            "units": {arm: int((outliers & (measured.arm == arm)).sum()) for arm in plan.every},
            "busiest_day": int(measured.busiest.max(initial=0)),
        },
    }  # fmt: skip
    if config.exclude_outliers:
        measured = measured.without(outliers)
    metrics = [name for name in METRICS if name not in OF_VALUE or found.unpriced < max(found.purchases, 1)]
    report["missing"] = [name for name in METRICS if name not in metrics]
    report["period"] = _period(measured, found, plan, now_us)
    report |= _splits(measured, plan)
    report["totals"] = {arm: _totals(measured, arm) for arm in plan.every}
    report["shown"] = {arm: _shown(found.items, arm) for arm in plan.every}
    report["effects"] = effects_of(config, plan, measured, metrics)
    if config.primary in metrics:
        report["by_date"] = _by_date(config, plan, measured)
        report["novelty"] = {arm: _novelty(config, plan, measured, arm) for arm in plan.arms}
        report["horizon"] = {arm: _horizon(config, plan, report, arm) for arm in plan.arms}
    else:
        report |= {"by_date": {}, "novelty": {}, "horizon": {arm: None for arm in plan.arms}}
    report["verdict"] = verdict_of(config, report)
    return report


def boundary_of(config: ExperimentReportConfig, plan: Plan) -> Boundary:
    """Return the boundary of the primary metric: the error is divided among the arms."""
    return Boundary(config.decision, (1 - config.level) / max(len(plan.arms), 1), config.minimum_effect)


def _period(measured: Measured, found: Units, plan: Plan, now_us: int) -> dict[str, Any]:
    first = int(measured.units[FIRST].min() or 0)  # type: ignore[arg-type]
    return {
        "first_exposure": _iso(first), "last_event": _iso(found.last_us),
        "days": round(max(found.last_us - first, 0) / DAY_US, 2),
        "planned_end": _iso(plan.end_us) if plan.ends else None, "ended": plan.ends and now_us >= plan.end_us,
    }  # fmt: skip


def _iso(micros: int) -> str:
    return datetime.fromtimestamp(micros / 1_000_000, UTC).isoformat(timespec="seconds")


def _splits(measured: Measured, plan: Plan) -> dict[str, Any]:
    """Return the split of all units, and by day and surface of the first exposure."""

    def counts(frame: pl.DataFrame) -> dict[str, int]:
        return dict(frame[ARM].value_counts().iter_rows())

    every = counts(measured.units)
    if not plan.shares:
        return {"split": None, "split_by_day": {}, "split_by_surface": {}, "unknown_arms": []}
    days = measured.units.with_columns(
        pl.from_epoch(pl.col(FIRST), time_unit="us").dt.date().cast(pl.String).alias("date"),
        pl.col(SURFACE).fill_null("no surface"),
    )
    parts = {
        key: {
            str(name): counts(part)
            for (name,), part in days.sort(column).group_by(column, maintain_order=True)
        }
        for key, column in (("split_by_day", "date"), ("split_by_surface", SURFACE))
    }
    return {
        "split": split_check(every, plan.shares),
        **{key: split_checks(part, plan.shares) for key, part in parts.items()},
        "unknown_arms": sorted(set(every) - set(plan.shares)),
    }


def _totals(measured: Measured, arm: str) -> dict[str, Any]:
    ours = measured.arm == arm
    sums = {name: float(values[ours].sum()) for name, values in measured.totals.items() if name != "events"}
    value = measured.totals["value"][ours]
    top = float(value.max(initial=0.0)) / sums["value"] if sums["value"] > 0 else 0.0
    returning = int((measured.units["seen_before"].to_numpy() & ours).sum())
    return {"units": int(ours.sum()), "returning": returning, **sums, "value_of_top_unit": round(top, 4)}


def _shown(items: pl.DataFrame, arm: str) -> dict[str, Any]:
    """Return how varied an arm's impressions are: items, and the exponential of their entropy."""
    counts = items.filter(pl.col(ARM) == arm)["impressions"].to_numpy().astype(np.float64)
    if not counts.size:
        return {"items": 0, "effective_items": 0.0, "top_tenth": None}
    share = np.sort(counts / counts.sum())[::-1]
    tenth = share[: max(1, len(share) // 10)].sum()
    return {
        "items": len(share), "top_tenth": float(tenth),
        "effective_items": float(np.exp(-(share * np.log(share)).sum())),
    }  # fmt: skip


def _row(
    measured: Measured, plan: Plan, metric: str, arm: str, boundary: Boundary,
    part: npt.NDArray[np.bool_] | None = None, totals: dict[str, Doubles] | None = None,
    reference: float | None = None,
) -> dict[str, Any] | None:  # fmt: skip
    """Return an effect with its intervals; None where there is nothing to estimate from.

    Args:
        measured: what units did.
        plan: the experiment.
        metric: name of the metric.
        arm: compared with control.
        boundary: of the intervals.
        part: units that count, [units]; None for all.
        totals: other measures than those of the whole time.
        reference: standard error of the primary metric's lift at this look, which is the clock of sequential
            intervals, so that they are tightest at its horizon for every metric; None takes the metric's own.
    """
    chosen = np.ones(len(measured.arm), dtype=np.bool_) if part is None else part
    sides = [(measured.arm == name) & chosen for name in (arm, plan.control)]
    found = effect(*(measured.sample(metric, side, totals) for side in sides))
    if found is None:
        return None
    row: dict[str, Any] = {
        "value": found.value, "control": found.control, "difference": found.difference, "error": found.error,
        "low": None, "high": None, "lift": found.lift, "lift_error": found.lift_error, "lift_low": None,
        "lift_high": None, "p_value": None, "reduction": found.reduction,
        "units": [int(side.sum()) for side in sides],
    }  # fmt: skip
    clock = found.lift_error if reference is None else reference
    reach = boundary.reach(clock, found.freedom)
    if found.error > 0 and reach is not None:
        row["low"] = found.difference - reach * found.error
        row["high"] = found.difference + reach * found.error
        row["p_value"] = boundary.p_value(found.difference / found.error, clock, found.freedom)
        if found.lift is not None and found.lift_error is not None:
            row["lift_low"] = found.lift - reach * found.lift_error
            row["lift_high"] = found.lift + reach * found.lift_error
    return row


def effects_of(
    config: ExperimentReportConfig, plan: Plan, measured: Measured, metrics: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Return metric by arm; p values of all metrics but the primary one are corrected together."""
    alpha = 1 - config.level
    main = boundary_of(config, plan)
    other = Boundary(config.decision, alpha, config.minimum_effect)
    effects: dict[str, dict[str, Any]] = {}
    for arm in plan.arms:
        first = _row(measured, plan, config.primary, arm, main) if config.primary in metrics else None
        clock = first["lift_error"] if first else None
        effects[arm] = {
            name: first if name == config.primary else _row(measured, plan, name, arm, other, reference=clock)
            for name in metrics
        }
        if first:  # by Bonferroni, as its interval is
            p_value = first["p_value"]
            first["p_corrected"] = None if p_value is None else min(1.0, p_value * len(plan.arms))
    rows = [row for arm in plan.arms for name, row in effects[arm].items() if row and name != config.primary]
    corrections = corrected([row["p_value"] for row in rows], config.correction)
    for row, p_value in zip(rows, corrections, strict=True):
        row["p_corrected"] = p_value
    return effects


def _by_date(
    config: ExperimentReportConfig, plan: Plan, measured: Measured
) -> dict[str, list[dict[str, Any]]]:
    """Return the primary metric's effect as it was at the end of each day."""
    boundary = boundary_of(config, plan)
    dates = np.unique(measured.begun)
    last = int(measured.dates.max(initial=0))
    days = range(int(dates.min(initial=last)), last + 1)[-_MOST_DATES:]
    found: dict[str, list[dict[str, Any]]] = {arm: [] for arm in plan.arms}
    for date in days:
        totals = measured.until(config.primary, date)
        begun = measured.begun <= date
        for arm in plan.arms:
            row = _row(measured, plan, config.primary, arm, boundary, begun, totals)
            if row is not None and min(row["units"]) >= config.minimum_units:
                names = ("lift", "lift_low", "lift_high", "p_value", "units")
                found[arm].append({"date": _iso(date * DAY_US)[:10], **{name: row[name] for name in names}})
    return found


def _novelty(config: ExperimentReportConfig, plan: Plan, measured: Measured, arm: str) -> dict[str, Any]:
    """Return the effect by day since the first exposure, and of new and of returning units."""
    rows = [measured.day_rows(config.primary, measured.arm == name) for name in (arm, plan.control)]
    found = by_day(rows[0], rows[1], 1 - config.level)
    boundary = Boundary("fixed", 1 - config.level, config.minimum_effect)
    returning = measured.units["seen_before"].to_numpy()
    parts = {
        name: _row(measured, plan, config.primary, arm, boundary, part)
        for name, part in (("new", ~returning), ("returning", returning))
    }
    difference, p_value = None, None
    new, old = parts["new"], parts["returning"]
    if new and old and new["lift_error"] and old["lift_error"]:
        difference = new["lift"] - old["lift"]
        p_value = float(2 * norm.sf(abs(difference) / np.hypot(new["lift_error"], old["lift_error"])))
    return {**found, **parts, "new_minus_returning": difference, "new_minus_returning_p_value": p_value}


def _horizon(
    config: ExperimentReportConfig, plan: Plan, report: Mapping[str, Any], arm: str
) -> dict[str, Any] | None:
    """Return the units and days that the smallest effect needs, at the present variance and rate."""
    row = report["effects"][arm].get(config.primary)
    if not row or not row["lift_error"]:
        return None
    units: int = sum(row["units"])
    needed = units_needed(
        boundary_of(config, plan),
        row["lift_error"],
        (row["units"][0], row["units"][1]),
        config.power,
        config.minimum_effect,
    )
    days = report["period"]["days"] * needed / units
    return {"units": units, "units_needed": needed, "days_needed": round(days, 1)}
