"""Plots of a report as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ranking.evaluation.page.charts import ACCENT, GRID, INK, OTHERS, new_axes, svg_text

_MOST_LABELS: Final = 8


def lift_by_date(by_date: Mapping[str, Sequence[Mapping[str, Any]]], metric: str) -> str:
    """Draw the lift and its interval as they were at the end of each day, by arm; empty without days."""
    drawn = {arm: [row for row in rows if row["lift_low"] is not None] for arm, rows in by_date.items()}
    dates = sorted({row["date"] for rows in drawn.values() for row in rows})
    if not dates:
        return ""
    place = {date: at for at, date in enumerate(dates)}
    figure, axes = new_axes(7.2, 3.2)
    for colour, (arm, rows) in zip((ACCENT, *OTHERS) * len(drawn), drawn.items(), strict=False):
        at = [place[row["date"]] for row in rows]
        axes.plot(at, [100 * row["lift"] for row in rows], color=colour, marker="o", markersize=3, label=arm)
        low, high = ([100 * row[end] for row in rows] for end in ("lift_low", "lift_high"))
        axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.axhline(0, color=INK, linewidth=0.8)
    step = max(1, -(-len(dates) // _MOST_LABELS))
    axes.set_xticks(range(0, len(dates), step), dates[::step], rotation=30, ha="right")
    axes.set_ylabel(f"lift of {metric}, %")
    axes.grid(axis="y", color=GRID)
    axes.legend(frameon=False, fontsize=9)
    return svg_text(figure, "lift at the end of each day")


def novelty(days: Sequence[Mapping[str, Any]], metric: str, arm: str) -> str:
    """Draw the effect by day since the first exposure, with intervals; empty without days."""
    if not days:
        return ""
    figure, axes = new_axes(7.2, 2.8)
    at = [row["day"] for row in days]
    middle = [row["difference"] for row in days]
    reach = [row["high"] - row["difference"] for row in days]
    axes.errorbar(
        at, middle, yerr=reach, color=ACCENT, marker="o", markersize=4, linestyle="none", linewidth=1.4
    )
    axes.axhline(0, color=INK, linewidth=0.8)
    axes.set_xlabel("days since a unit's first exposure")
    axes.set_ylabel(f"difference of {metric}")
    axes.grid(axis="y", color=GRID)
    return svg_text(figure, f"effect of {arm} by day since the first exposure")
