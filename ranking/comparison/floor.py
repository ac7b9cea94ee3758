"""A floor below which no model is worth serving: the most popular items, the same for everyone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conf.comparison import Guard
from ranking.baselines.registry import Popularity, fit_ends
from ranking.comparison.guards import judge_guards
from ranking.comparison.measured import Measured, measure
from ranking.comparison.window import Window
from ranking.evaluation.list_providers import DEPTH


def popular_lists(window: Window) -> Measured:
    """Return the lists of most events before the window, measured on its queries."""
    dataset = window.dataset
    baseline = Popularity(dataset.kind_weights)
    baseline.fit(dataset.events, *fit_ends(window.split, window.name), len(dataset.catalogue))
    items, scores = baseline.recommend(dataset.events, window.queries, DEPTH, window.exclude_seen)
    return measure(baseline.name, window, items, scores, {"kind": "baseline", "about": baseline.describe()})


def judge_floor(window: Window, system: Measured, guards: Sequence[Guard]) -> list[dict[str, Any]]:
    """Return what became of guards that a system has to hold against the most popular items.

    A comparison with the served model alone passes any model once a bad one is served; this does not.

    Raises:
        InputError: a guard of an unknown metric, or of a slice.
    """
    popular = popular_lists(window)
    judged = judge_guards(guards, popular.answer.values, system.answer.values, {}, {})
    return [{**guard, "line": f"{guard['line']} (from the most popular items)"} for guard in judged]
