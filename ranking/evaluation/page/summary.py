"""A result in words: headline, summary, and what its readers should not be fooled by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ranking.evaluation.metrics import HEADLINE

METRIC: Final = f"recall@{HEADLINE}"
ALPHA: Final = 0.05
LEAST_QUERIES: Final = 30
"""Queries below which a slice is not mentioned."""
FEW_QUERIES: Final = 500
"""Queries below which the summary warns of a small test."""
NOTABLE: Final = 0.25
"""Share of the targets from which a shortcut is mentioned."""
STAGES: Final = {
    "filtered": "excluded by the list's limits",
    "never_proposed": "never proposed by any source",
    "approximate_search": "lost to approximate search",
    "ranked_away": "proposed but ranked below the tenth place",
    "reranked_away": "moved out of the first ten by re-ranking",
}
"""Stages of loss in words, in the order of the waterfall."""

Differences = Mapping[str, tuple[float, float, float]]
"""Slice -> difference of recall@10 from the strongest baseline, and its 95 % interval."""


def measured(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each system's metrics in the main window: test, or validation where test was not evaluated."""
    metrics: dict[str, dict[str, Any]] = result[result["protocol"]["measured"]]
    return metrics


def best_baseline(result: Mapping[str, Any], metric: str = METRIC) -> str | None:
    """Return the baseline with the highest metric; None without baselines."""
    protocol = result["protocol"]
    own = (protocol["system"], *protocol["parts"])
    rivals = {name: values[metric] or 0.0 for name, values in measured(result).items() if name not in own}
    return max(rivals, key=lambda name: rivals[name]) if rivals else None


def stars(p_value: float | None) -> str:
    """Return the stars of a p-value: *** below .001, ** below .01, * below .05, else none."""
    if p_value is None:
        return ""
    return "***" if p_value < 0.001 else "**" if p_value < 0.01 else "*" if p_value < 0.05 else ""


def in_words(p_value: float | None) -> str:
    """Return `p < .001`, `p = 0.032`, or an empty text without a p-value."""
    if p_value is None:
        return ""
    return "p < .001" if p_value < 0.001 else f"p = {p_value:.3f}"


def paired_test_of(result: Mapping[str, Any], rival: str, metric: str = METRIC) -> dict[str, Any]:
    """Return the paired test of the system against a baseline."""
    test: dict[str, Any] = result["significance"][result["protocol"]["measured"]][rival][metric]
    return test


def corrected_p(test: Mapping[str, Any]) -> float | None:
    """Return a test's p-value after Holm's correction, or the raw one of results that have no other."""
    value: float | None = test.get("p_holm", test["p_value"])
    return value


def headline(result: Mapping[str, Any]) -> str:
    """Return one or two sentences that compare the system with its strongest baseline."""
    system, rival = result["protocol"]["system"], best_baseline(result)
    metrics = measured(result)
    own = metrics[system][METRIC]
    found = (
        f"{system} puts {own:.1%} of what users chose next into the first {HEADLINE} of "
        f"{result['protocol']['items']:,} items."
    )
    if rival is None:
        return found
    theirs = metrics[rival][METRIC]
    p_value = corrected_p(paired_test_of(result, rival))
    if p_value is None or p_value >= ALPHA:
        return f"{found} That is not distinguishable from the strongest baseline, {rival} ({theirs:.1%})."
    relation = "more" if own > theirs else "less"
    size = f"{abs(own / theirs - 1):.0%} {relation} than" if theirs else "against nothing for"
    return f"{found} That is {size} the strongest baseline, {rival} ({theirs:.1%}; {in_words(p_value)})."


def _points(share: float) -> str:
    return f"{100 * share:.1f}"


def _asked(result: Mapping[str, Any]) -> str:
    protocol = result["protocol"]
    window = protocol["measured"]
    seen = "left out of the lists" if protocol["exclude_seen"] else "allowed in the lists"
    return (
        f"{protocol['queries'][window]:,} users of the {window} window each got one list of {HEADLINE} "
        f"out of all {protocol['items']:,} items, made from their history alone, "
        f"with items they already had {seen}; "
        f"measured is how much of the {protocol['targets'][window]:,} choices that followed is in it."
    )


def _against(result: Mapping[str, Any]) -> str:
    protocol, metrics = result["protocol"], measured(result)
    system, rival = protocol["system"], best_baseline(result)
    own = metrics[system][METRIC]
    low, high = result["confidence"][protocol["measured"]][system][METRIC]
    found = f"{system} finds {own:.1%}"
    if low is not None and high is not None:
        found += f" ({_points(low)} to {_points(high)} with {protocol['confidence_level']:.0%} confidence)"
    if rival is None:
        return f"{found}; no baseline was measured beside it."
    test = paired_test_of(result, rival)
    span = f"{_points(test['low'])} to {_points(test['high'])}"
    p_value = corrected_p(test)
    if p_value is None or p_value >= ALPHA:
        return (
            f"{found}; the strongest baseline, {rival}, finds {metrics[rival][METRIC]:.1%}, "
            f"and the difference of {_points(test['difference'])} points ({span}) may be chance."
        )
    word = "more" if test["difference"] > 0 else "fewer"
    return (
        f"{found}, {_points(abs(test['difference']))} points {word} than the strongest baseline, {rival} "
        f"({metrics[rival][METRIC]:.1%}; difference {span}, {in_words(p_value)})."
    )


def _named(slices: Sequence[str]) -> str:
    names = [name.replace("_", " ") for name in slices]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _where(result: Mapping[str, Any], differences: Differences) -> str:
    """Return where it wins and loses against the strongest baseline, by intervals of single slices."""
    rival = best_baseline(result)
    if rival is None or not differences:
        return ""
    large = {
        name: values
        for name, values in differences.items()
        if result["slices"].get(name, {}).get("queries", 0) >= LEAST_QUERIES
    }
    wins = sorted((n for n, (_, low, _) in large.items() if low > 0), key=lambda n: -large[n][0])[:3]
    losses = sorted((n for n, (_, _, high) in large.items() if high < 0), key=lambda n: large[n][0])[:3]
    won = (
        f"It is ahead of {rival} most on {_named(wins)}"
        if wins
        else f"No part of the data shows it ahead of {rival}"
    )
    lost = f"behind on {_named(losses)}" if losses else "on none of the parts measurably behind"
    return f"{won}, and {lost}."


def _lost(result: Mapping[str, Any]) -> str:
    losses = (result.get("losses") or {}).get(result["protocol"]["measured"])
    if not losses or not losses["all"]["lost"]:
        return ""
    shares = losses["all"]["per_100_lost"]
    largest = sorted((stage for stage in STAGES if shares.get(stage)), key=lambda stage: -shares[stage])[:2]
    parts = [f"{shares[stage]:.0f} were {STAGES[stage]}" for stage in largest]
    return f"Of 100 choices that it misses, {' and '.join(parts)}."


def distrust(result: Mapping[str, Any], lint: Sequence[Mapping[str, Any]] = ()) -> list[str]:
    """Return what could make the numbers say more than they mean, one sentence each."""
    protocol = result["protocol"]
    window = protocol["measured"]
    shortcuts = result.get("shortcuts") or {}
    shortcuts = shortcuts.get(window, shortcuts)
    found = []
    serious = [finding for finding in lint if finding["severity"] == "serious"]
    if serious:
        found.append(f"The data linter has {len(serious)} serious finding(s): {serious[0]['title']}.")
    same_day = shortcuts.get("same_day")
    if same_day is None and "same_day_as_previous" in result["slices"]:
        same_day = result["slices"]["same_day_as_previous"]["targets"] / max(protocol["targets"][window], 1)
    if same_day is not None and same_day >= NOTABLE:
        found.append(
            f"{same_day:.0%} of the choices fall on the day of the last known event: they complete a basket "
            "that has begun, which is easier than a later visit."
        )
    successors = shortcuts.get("targets_known_successors")
    if successors is not None and successors >= NOTABLE:
        found.append(
            f"{successors:.0%} of the choices had followed the last item in somebody's history before, "
            "so that a table of what follows what already finds part of them."
        )
    history = shortcuts.get("in_history")
    if history is not None and history >= NOTABLE and not protocol["exclude_seen"]:
        found.append(f"{history:.0%} of the choices repeat an item of the user's own history.")
    table = ((result.get("calibration") or {}).get(window) or {}).get("click") or {}
    predicted, observed = table.get("mean_predicted", 0.0), table.get("mean_observed", 0.0)
    if predicted and abs(observed / predicted - 1) >= NOTABLE:
        found.append(
            f"The probability of a click averages {predicted:.2%} on the listed items, of which "
            f"{observed:.2%} were chosen: it orders items, but is not to be read as a rate."
        )
    if protocol["queries"][window] < FEW_QUERIES:
        found.append(
            f"{protocol['queries'][window]:,} users are few: differences of single parts are mostly noise."
        )
    if window == "valid":
        found.append("This is the validation window, on which settings were chosen; test is stricter.")
    return found


def summary(
    result: Mapping[str, Any], differences: Differences, lint: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Return the result as one paragraph: what was measured, how it went, where, and what to distrust.

    Args:
        result: of `evaluate_lists`.
        differences: of recall@10 from the strongest baseline by slice; empty where queries are not stored.
        lint: findings of the data linter.
    """
    cautions = distrust(result, lint)
    warning = f"Read it with care: {' '.join(cautions)}" if cautions else ""
    parts = (_asked(result), _against(result), _where(result, differences), _lost(result), warning)
    return " ".join(part for part in parts if part)
