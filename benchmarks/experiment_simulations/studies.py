"""The studies: what is simulated, and what is counted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np
from scipy.stats import binomtest

from benchmarks.experiment_simulations.shoppers import START_DAY, Design, simulate
from conf.experiment_report import ExperimentReportConfig
from lifecycle.experiments.analysis import effects_of
from lifecycle.experiments.boundaries import Boundary
from lifecycle.experiments.estimates import Effect, effect
from lifecycle.experiments.metrics import Measured
from lifecycle.experiments.novelty import by_day
from lifecycle.experiments.plan import Plan
from lifecycle.experiments.split import split_check
from lifecycle.experiments.units import ARM, Units

Row = dict[str, Any]

PLAN: Final = Plan("simulated", "control", ["new"], {"control": 0.5, "new": 0.5})
METRICS: Final = ("ctr", "clicks_per_unit", "conversion", "purchases_per_unit", "value_per_unit")
FIXED: Final = ExperimentReportConfig(decision="fixed")
_TRUTH_SHOPPERS: Final = 400_000


def effects(config: ExperimentReportConfig, units: Units, metrics: tuple[str, ...] = METRICS) -> Row:
    """Return the arm's effect on each metric."""
    measured = Measured.of(units, config.winsorise, config.cuped_days > 0)
    return effects_of(config, PLAN, measured, metrics)["new"]


def percent(count: int, of: int) -> Row:
    """Return a share in percent and its 95 % interval."""
    band = binomtest(count, of).proportion_ci(0.95)
    return {"percent": 100 * count / of, "band": [100 * band.low, 100 * band.high]}


def truth(design: Design, seed: int) -> dict[str, float]:
    """Return the lift of each metric: the design's, but for conversion, which is found in many shoppers."""
    known = dict.fromkeys(METRICS, design.lift)
    if design.lift:
        many = effects(FIXED, simulate(replace(design, shoppers=_TRUTH_SHOPPERS), seed), ("conversion",))
        known["conversion"] = many["conversion"]["lift"]
    return known


def coverage(runs: int, seed: int) -> list[Row]:
    """Return how often fixed intervals contain the true lift, with an effect and without (A/A)."""
    rows = []
    for lift in (0.0, 0.1):
        design = Design(lift=lift)
        known = truth(design, seed + 1_000_000)
        counts = {days: {name: [0, 0] for name in METRICS} for days in (0, 28)}
        for run in range(runs):
            units = simulate(design, seed + run)
            for days, counted in counts.items():
                made = effects(replace(FIXED, cuped_days=days), units)
                for name, count in counted.items():
                    row = made[name]
                    count[0] += row["lift_low"] <= known[name] <= row["lift_high"]
                    count[1] += row["p_value"] < 0.05
        for days, counted in counts.items():
            for name, (hits, fired) in counted.items():
                covered, found = percent(hits, runs), percent(fired, runs)
                rows.append(
                    {
                        "lift": known[name], "cuped": "yes" if days else "no", "metric": name,
                        "covered_percent": covered["percent"], "band": covered["band"],
                        "p_below_05_percent": found["percent"], "p_band": found["band"],
                    }
                )  # fmt: skip
    return rows


def cuped(runs: int, seed: int) -> list[Row]:
    """Return bias and error of estimates with a long, a short and no time before."""
    rows = []
    for words, design in (
        ("28 days before", Design()),
        ("3 days before", Design(before=3)),
        ("no time before", Design(before=0)),
    ):
        estimates: dict[tuple[str, int], list[float]] = {}
        claimed: dict[tuple[str, int], list[float]] = {}
        for run in range(runs):
            units = simulate(design, seed + run)
            for days in (0, 28):
                made = effects(replace(FIXED, cuped_days=days), units, ("ctr", "value_per_unit"))
                for name, row in made.items():
                    estimates.setdefault((name, days), []).append(row["lift"])
                    claimed.setdefault((name, days), []).append(row["lift_error"])
        for name in ("ctr", "value_per_unit"):
            plain, reduced = np.array(estimates[name, 0]), np.array(estimates[name, 28])
            spread = reduced.std(ddof=1)
            rows.append(
                {
                    "time_before": words, "metric": name, "mean_lift": float(reduced.mean()),
                    "error_of_mean": float(spread / np.sqrt(runs)),
                    "variance_left_percent": float(100 * reduced.var(ddof=1) / plain.var(ddof=1)),
                    "claimed_over_true_error": float(np.mean(claimed[name, 28]) / spread),
                }
            )  # fmt: skip
    return rows


def looks(runs: int, seed: int) -> list[Row]:
    """Return how often and how soon looks every day find an effect, in A/A experiments and real ones."""
    rules = ("fixed, stopped at the first p < .05", "sequential", "fixed, one look at the end")
    rows = []
    for lift in (0.0, 0.1):
        design = Design(lift=lift)
        days: dict[str, list[int]] = {name: [] for name in rules}
        for run in range(runs):
            evenings = _evenings(design, seed + run)
            beyond = {rule: _days_beyond(evenings, rule) for rule in ("fixed", "sequential")}
            for name in rules:
                found = beyond[name.partition(",")[0]]
                last = [day for day in found if day == design.days or not name.endswith("end")]
                days[name] += last[:1]
        for name, first in days.items():
            share = percent(len(first), runs)
            rows.append(
                {
                    "lift": lift, "rule": name, "found_percent": share["percent"], "band": share["band"],
                    "median_day": float(np.median(first)) if first else None,
                }
            )  # fmt: skip
    return rows


def _days_beyond(estimates: list[tuple[int, Effect]], decision: str) -> list[int]:
    """Return the days on whose evening the interval of ctr excludes 0."""
    boundary = Boundary(decision, 0.05, FIXED.minimum_effect)
    return [
        day
        for day, found in estimates
        if found.error > 0
        and (reach := boundary.reach(found.lift_error, found.freedom)) is not None
        and abs(found.difference) > reach * found.error
    ]


def _evenings(design: Design, seed: int) -> list[tuple[int, Effect]]:
    """Return the estimate of ctr at the end of each day, from 1, with at least 100 units in each arm."""
    measured = Measured.of(simulate(design, seed), None, True)
    estimates = []
    for day in range(1, design.days + 1):
        totals = measured.until("ctr", START_DAY + day - 1)
        begun = measured.begun < START_DAY + day
        sides = [
            measured.sample("ctr", (measured.arm == name) & begun, totals) for name in ("new", "control")
        ]
        if min(side.units for side in sides) >= FIXED.minimum_units and (found := effect(*sides)):
            estimates.append((day, found))
    return estimates


def splits(runs: int, seed: int) -> list[Row]:
    """Return how many broken splits are caught, and how far they would have led astray."""
    rows = []
    for words, design in (
        ("as planned", Design(lift=0.0)),
        ("10 % of an arm's shoppers lost, 4,000 shoppers", Design(lift=0.0, lost=0.1)),
        ("10 % lost, 16,000 shoppers", Design(lift=0.0, lost=0.1, shoppers=16_000)),
        (
            "the most active 10 % lost, 16,000 shoppers",
            Design(lift=0.0, lost=0.1, lost_by_activity=True, shoppers=16_000),
        ),
    ):
        caught, wrong = 0, 0
        for run in range(runs):
            units = simulate(design, seed + run)
            counts = dict(units.units[ARM].value_counts().iter_rows())
            caught += split_check(counts, PLAN.shares)["broken"]
            wrong += (
                effects(replace(FIXED, cuped_days=0), units, ("clicks_per_unit",))["clicks_per_unit"][
                    "p_value"
                ]
                < 0.05
            )
        share, misled = percent(caught, runs), percent(wrong, runs)
        rows.append(
            {
                "split": words, "caught_percent": share["percent"], "band": share["band"],
                "false_findings_percent": misled["percent"],
            }
        )  # fmt: skip
    return rows


def novelty(runs: int, seed: int) -> list[Row]:
    """Return how often the trend test fires for effects that fade, last, or are not there."""
    rows = []
    for words, design in (
        ("no effect", Design(lift=0.0)),
        ("20 %, lasting", Design(lift=0.2)),
        ("40 %, halved every 3 days", Design(lift=0.4, decay=np.log(2) / 3)),
        ("40 %, halved every day", Design(lift=0.4, decay=np.log(2))),
    ):
        fired, falling = 0, 0
        for run in range(runs):
            measured = Measured.of(simulate(design, seed + run), None, False)
            sides = [measured.day_rows("ctr", measured.arm == name) for name in ("new", "control")]
            found = by_day(sides[0], sides[1], 0.05)
            fired += found["p_value"] < 0.05
            falling += found["p_value"] < 0.05 and found["slope"] < 0
        share = percent(fired, runs)
        rows.append(
            {
                "effect": words, "trend_found_percent": share["percent"], "band": share["band"],
                "falling_percent": 100 * falling / runs,
            }
        )  # fmt: skip
    return rows
