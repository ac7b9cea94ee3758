"""Guards, decided: a one-sided non-inferiority test with a margin.

Per query i let a_i and b_i be the metric of the present and of the new system, r the largest relative and m
the largest absolute loss (one of them is 0), and d_i = b_i - (1 - r) a_i + m. The loss is within the limit
where the mean of d over all users, of whom the queries are a sample, is 0 or more. With the one-sided t
interval of the mean at the guard's confidence:

- *broken*: the upper end is below 0; the hypothesis "the loss is within the limit" is rejected;
- *held*: the lower end is 0 or more; the hypothesis "the loss is above the limit" is rejected
  (non-inferiority, e.g. Wellek 2010; with r > 0 as in Fieller 1954, as the mean of a is an estimate, too);
- *undecided*: neither, because there are too few queries for so narrow a limit; the guard says what counts.

Metrics of all lists together, such as coverage@10, have no value per query: they are compared as measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from scipy import stats

from conf.comparison import EVERYONE, Guard, Undecided
from conf.errors import InputError, closest
from ranking.comparison.paired_slices import PairedSlice
from ranking.evaluation.metrics import ValueArray

BROKEN: Final = "broken"
HELD: Final = "held"
UNDECIDED: Final = "undecided"
WHOLE: Final = ("coverage@10", "novelty@10", "diversity@10")
"""Metrics without a value per query, of which more is better."""
_ROUNDING: Final = 1e-12


def margin_interval(a: ValueArray, b: ValueArray, guard: Guard) -> tuple[float, float, float]:
    """Return the mean of d (0 or more is within the limit) and its one-sided lower and upper ends.

    Args:
        a: [queries] metric of the present system.
        b: [queries] metric of the new one.
        guard: the limit.

    Returns:
        The ends are infinite with fewer than two queries.
    """
    margins = b - (1 - guard.relative) * a + guard.absolute
    if len(margins) < 2:
        return (float(margins.mean()) if len(margins) else float("nan")), -np.inf, np.inf
    mean = float(margins.mean())
    error = float(margins.std(ddof=1)) / np.sqrt(len(margins))
    if error < _ROUNDING:
        return mean, mean, mean
    reach = float(stats.t.ppf(guard.confidence, len(margins) - 1)) * error
    return mean, mean - reach, mean + reach


def _outcome(low: float, high: float) -> str:
    if high < -_ROUNDING:
        return BROKEN
    return HELD if low >= -_ROUNDING else UNDECIDED


def _checked(guard: Guard, metrics: Sequence[str], slices: Mapping[str, Any]) -> None:
    """Refuse a guard of an unknown metric or slice."""
    if guard.slice != EVERYONE and guard.slice not in slices:
        raise InputError(
            f"guard '{guard}': no query is in a slice '{guard.slice}'{closest(guard.slice, slices)} "
            f"(there are: {', '.join([EVERYONE, *slices])})"
        )
    if guard.metric not in metrics:
        raise InputError(
            f"guard '{guard}': no metric '{guard.metric}'{closest(guard.metric, metrics)} (there are: "
            f"{', '.join(metrics)})"
        )


def judge_guards(
    guards: Sequence[Guard],
    a: Mapping[str, ValueArray],
    b: Mapping[str, ValueArray],
    slices: Mapping[str, PairedSlice],
    whole: Mapping[str, Mapping[str, float | None]],
) -> list[dict[str, Any]]:
    """Return what became of each guard.

    Args:
        guards: the guards.
        a: metrics per query of the present system, [queries] each.
        b: those of the new one.
        slices: the same per slice.
        whole: metrics of all lists together.

    Returns:
        Per guard its settings, `outcome`, `passed`, the values, and a `line` for people.

    Raises:
        InputError: a guard of an unknown metric or slice.
    """
    found = []
    for guard in guards:
        part = None if guard.slice == EVERYONE else slices.get(guard.slice)
        names = [*a, *WHOLE] if guard.slice == EVERYONE else list(part.a) if part else [guard.metric]
        _checked(guard, names, slices)
        if guard.metric in WHOLE:
            found.append(_whole(guard, whole[guard.metric]))
            continue
        own, other = (a, b) if part is None else (part.a, part.b)
        mean, low, high = margin_interval(own[guard.metric], other[guard.metric], guard)
        found.append(
            _judged(
                guard,
                _outcome(low, high),
                float(own[guard.metric].mean()),
                float(other[guard.metric].mean()),
                {"margin": mean, "margin_low": low, "margin_high": high, "queries": len(own[guard.metric])},
            )
        )
    return found


def _whole(guard: Guard, values: Mapping[str, float | None]) -> dict[str, Any]:
    """Judge a metric of all lists together as measured."""
    a, b = values["a"], values["b"]
    if a is None or b is None:
        return _judged(guard, UNDECIDED, a, b, {"margin": None})
    margin = b - (1 - guard.relative) * a + guard.absolute
    return _judged(guard, _outcome(margin, margin), a, b, {"margin": margin})


def _judged(
    guard: Guard, outcome: str, a: float | None, b: float | None, details: Mapping[str, Any]
) -> dict[str, Any]:
    passed = outcome == HELD or (outcome == UNDECIDED and guard.undecided == Undecided.accept.value)
    found = {
        "metric": guard.metric,
        "slice": guard.slice,
        "loss": guard.loss,
        "confidence": guard.confidence,
        "undecided": guard.undecided,
        "outcome": outcome,
        "passed": passed,
        "a": a,
        "b": b,
        **details,
    }
    return {**found, "line": _line(guard, found)}


def _line(guard: Guard, found: Mapping[str, Any]) -> str:
    """Return the outcome as one line."""
    a, b, outcome = found["a"], found["b"], found["outcome"]
    if a is None or b is None:
        return f"undecided: {guard}: the metric is unknown; counts as {_counts(guard)}"
    change = b - a
    share = f", {change / a:+.1%}" if a else ""
    values = f"{a:.4f} -> {b:.4f} ({change:+.4f}{share})"
    if "queries" not in found:
        return f"{outcome}: {guard}: {values}"
    sure = f"{100 * guard.confidence:g} % confidence, {found['queries']:,} queries"
    if outcome == UNDECIDED:
        return f"undecided: {guard}: {values}; too few queries to tell at {sure}; counts as {_counts(guard)}"
    return f"{outcome}: {guard}: {values}; {sure}"


def _counts(guard: Guard) -> str:
    return "held" if guard.undecided == Undecided.accept.value else "broken (undecided: reject)"


def broken_lines(guards: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the lines of the guards that were not passed."""
    return [str(guard["line"]) for guard in guards if not guard["passed"]]
