"""The comparison of two systems on the same queries, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from conf.comparison import Guard
from conf.errors import InputError, closest
from ranking.comparison.changed import most_changed
from ranking.comparison.guards import judge_guards
from ranking.comparison.measured import Measured
from ranking.comparison.paired_slices import SLICE_METRICS, PairedSlice, paired_slices
from ranking.comparison.window import Window
from ranking.evaluation.list_overlap import PERSISTENCE, overlap_at, rank_biased_overlap
from ranking.evaluation.many_tests import holm
from ranking.evaluation.metrics import ValueArray
from ranking.evaluation.significance import PairedDifference, bootstrap_intervals, paired_test
from ranking.evaluation.stage_recall import HEADLINE
from ranking.evaluation.summaries import LEVEL, plain_values

FORMAT_VERSION: Final = 1
BEYOND: Final = tuple(
    f"{name}@{HEADLINE}"
    for name in (
        "coverage", "gini", "novelty", "serendipity", "diversity", "popularity_lift", "new_items",
        "young_items",
    )
)  # fmt: skip
"""Metrics of all lists together, which have no value per query and no test."""
OVERLAP: Final = f"overlap@{HEADLINE}"
EXAMPLES: Final = 10
"""Items named of each catalogue alone."""
BINS: Final = 10
"""Bars of the histogram of overlaps."""


@dataclass(frozen=True)
class Settings:
    """What to compare and how surely."""

    metrics: Sequence[str]
    guards: Sequence[Guard] = ()
    shoppers: int = 20
    bootstrap: int = 1000
    seed: int = 0


def _columns(values: Mapping[str, ValueArray], names: Sequence[str]) -> ValueArray:
    return np.stack([values[name] for name in names], axis=1)


def _tested(
    test: PairedDifference, place: int, a: ValueArray, b: ValueArray, corrected: float
) -> dict[str, float]:
    """Return one row of a table; the difference is b - a."""
    return {
        "a": float(a.mean()),
        "b": float(b.mean()),
        "difference": float(test.difference[place]),
        "low": float(test.low[place]),
        "high": float(test.high[place]),
        "p_value": float(test.p_value[place]),
        "p_permutation": float(test.p_permutation[place]),
        "p_holm": corrected,
    }


def _metric_rows(a: Measured, b: Measured, settings: Settings) -> dict[str, Any]:
    names = list(settings.metrics)
    own, other = _columns(a.answer.values, names), _columns(b.answer.values, names)
    test = paired_test(other, own, resamples=settings.bootstrap, seed=settings.seed, level=LEVEL)
    corrected = holm(test.p_value)
    return {
        name: _tested(test, i, own[:, i], other[:, i], float(corrected[i])) for i, name in enumerate(names)
    }


def _slice_rows(slices: Mapping[str, PairedSlice], settings: Settings) -> dict[str, Any]:
    """Return recall@10 and ndcg@10 per slice; p-values are corrected over all slices, per metric."""
    rows: dict[str, Any] = {}
    for name, part in slices.items():
        own, other = _columns(part.a, SLICE_METRICS), _columns(part.b, SLICE_METRICS)
        test = paired_test(other, own, resamples=settings.bootstrap, seed=settings.seed, level=LEVEL)
        rows[name] = {
            "about": part.about,
            "queries": len(own),
            "targets": part.targets,
            "metrics": {
                metric: _tested(test, i, own[:, i], other[:, i], 1.0)
                for i, metric in enumerate(SLICE_METRICS)
            },
        }
    for metric in SLICE_METRICS:
        tests = [row["metrics"][metric] for row in rows.values()]
        for row, p in zip(tests, holm(np.array([t["p_value"] for t in tests])), strict=True):
            row["p_holm"] = float(p)
    return rows


def _likeness(a: Measured, b: Measured, settings: Settings) -> dict[str, Any]:
    """Return how alike the lists of both systems are."""
    first, second = a.answer.items, b.answer.items
    overlap, biased = overlap_at(first, second, HEADLINE), rank_biased_overlap(first, second)
    values = np.stack([overlap, biased], axis=1)
    low, high = bootstrap_intervals(values, settings.bootstrap, settings.seed, LEVEL)
    head_a, head_b = first[:, :HEADLINE], second[:, :HEADLINE]
    found: dict[str, Any] = {
        name: {"mean": float(values[:, i].mean()), "low": float(low[i]), "high": float(high[i])}
        for i, name in enumerate((OVERLAP, "rank_biased_overlap"))
    }
    counts, _ = np.histogram(overlap, bins=BINS, range=(0.0, 1.0))
    return {
        **found,
        "persistence": PERSISTENCE,
        "same_first_ten": float((head_a == head_b).all(axis=1).mean()),
        "same_first": float((first[:, 0] == second[:, 0]).mean()),
        "histogram": [int(n) for n in counts],
    }


def _catalogues(a: Measured, b: Measured) -> dict[str, Any]:
    """Count the items that both systems have, and those of one alone, with examples."""
    own, other = set(a.catalogue), set(b.catalogue)
    only = {"a": sorted(own - other), "b": sorted(other - own)}
    return {
        "both": len(own & other),
        **{f"only_{key}": len(ids) for key, ids in only.items()},
        **{f"examples_{key}": ids[:EXAMPLES] for key, ids in only.items()},
    }


def compare(
    window: Window, a: Measured, b: Measured, settings: Settings, notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the comparison of two systems on a window, as written to compare.json.

    Args:
        window: the queries.
        a: the present system.
        b: the one that may replace it; differences are b - a.
        settings: metrics, guards and samples.
        notes: what to know about the systems.

    Raises:
        InputError: an unknown metric, or a guard of an unknown metric or slice.
    """
    for metric in settings.metrics:
        if metric not in a.answer.values:
            raise InputError(
                f"metrics: no metric '{metric}'{closest(metric, a.answer.values)} (there are: "
                f"{', '.join(a.answer.values)})"
            )
    summaries = a.summary(window), b.summary(window)
    slices = paired_slices(window, a, b)
    beyond = {name: _beyond(summaries[0][name], summaries[1][name]) for name in BEYOND}
    result = {
        "format_version": FORMAT_VERSION,
        "window": window.facts(),
        "a": {"name": a.name, **a.facts},
        "b": {"name": b.name, **b.facts},
        "confidence_level": LEVEL,
        "bootstrap": settings.bootstrap,
        "seed": settings.seed,
        "metrics": _metric_rows(a, b, settings),
        "beyond_accuracy": beyond,
        "slices": _slice_rows(slices, settings),
        "notes": list(notes),
        "catalogues": _catalogues(a, b),
        "likeness": _likeness(a, b, settings),
        "guards": judge_guards(settings.guards, a.answer.values, b.answer.values, slices, beyond),
        "shoppers": most_changed(window, a, b, settings.shoppers),
    }
    return {key: plain_values(value) for key, value in result.items()}


def _beyond(a: float | None, b: float | None) -> dict[str, float | None]:
    return {"a": a, "b": b, "difference": None if a is None or b is None else b - a}
