"""A comparison as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from jinja2 import Environment, StrictUndefined

from ranking.comparison.table import SIGNIFICANT
from ranking.evaluation.page.summary import stars

TEMPLATE: Final = "compare.html.jinja"
WIDTH: Final = 160
"""Of the drawing of an interval, in its own units."""


def interval_places(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Return where each row's interval is drawn: `low`, `high` and `at` in 0..`WIDTH`, 0 in the middle.

    All rows share a scale, so that their intervals can be compared by eye.
    """
    ends = [abs(row[end]) for row in rows.values() for end in ("low", "high", "difference") if row[end]]
    reach = max(ends, default=1.0)

    def place(value: float | None) -> float:
        return round(WIDTH / 2 * (1 + 0.95 * (value or 0.0) / reach), 1)

    return {
        name: {"low": place(row["low"]), "high": place(row["high"]), "at": place(row["difference"])}
        for name, row in rows.items()
    }


def summary(result: Mapping[str, Any]) -> str:
    """Return one or two sentences for a reader without statistics."""
    name, row = next(iter(result["metrics"].items()))
    broken = [guard for guard in result["guards"] if not guard["passed"]]
    if row["p_holm"] is None or row["p_holm"] >= SIGNIFICANT:
        found = f"B is not distinguishable from A in {name} ({row['a']:.4f} and {row['b']:.4f})."
    else:
        better = "better" if row["difference"] > 0 else "worse"
        size = f" by {abs(row['difference'] / row['a']):.1%}" if row["a"] else ""
        found = f"B is {better} than A in {name}{size} ({row['a']:.4f} and {row['b']:.4f})."
    overlap = result["likeness"]["overlap@10"]["mean"]
    found += f" On average {10 * overlap:.1f} of a list's first ten items are the same."
    if result["guards"]:
        found += (
            f" {len(broken)} of {len(result['guards'])} guards broken." if broken else " Every guard holds."
        )
    return found


def environment() -> Environment:
    """Return the environment of the template, whose parts the explorer shares."""
    made = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters["number"] = lambda value: "–" if value is None else f"{value:.4f}"
    made.filters["signed"] = lambda value: "–" if value is None else f"{value:+.4f}"
    made.filters["chance"] = lambda p: "–" if p is None else "< .001" if p < 0.001 else f"{p:.3f}"
    made.filters["stars"] = stars
    return made


def render_page(result: Mapping[str, Any]) -> str:
    """Return the page.

    Args:
        result: of `compare`, or read back from compare.json.
    """
    source = resources.files("ranking.comparison").joinpath(TEMPLATE).read_text(encoding="utf-8")
    slices = {
        metric: {name: part["metrics"][metric] for name, part in result["slices"].items()}
        for metric in ("recall@10", "ndcg@10")
    }
    return (
        environment()
        .from_string(source)
        .render(
            result=result,
            summary=summary(result),
            places=interval_places(result["metrics"]),
            slices=slices,
            slice_places={metric: interval_places(rows) for metric, rows in slices.items()},
            width=WIDTH,
            significant=SIGNIFICANT,
        )
    )
