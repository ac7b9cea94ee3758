"""Plots of losses, probabilities and trainings, drawn as those of `charts`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.ticker import MaxNLocator

from ranking.evaluation.page.charts import ACCENT, BAR, GRID, INK, OTHERS, new_axes, svg_text
from ranking.evaluation.page.material import Training
from ranking.evaluation.page.summary import STAGES


def waterfall(losses: Mapping[str, Any]) -> str:
    """Draw what becomes of 100 choices: found in the first ten, or lost at each stage.

    Args:
        losses: of all targets or of a slice: `targets`, `found`, `stages`.
    """
    total = max(losses["targets"], 1)
    bars = [("in the first ten", 100 * losses["found"] / total, ACCENT)]
    bars += [(words, 100 * losses["stages"][stage] / total, BAR) for stage, words in STAGES.items()]
    figure, axes = new_axes(7.2, 0.7 + 0.36 * len(bars))
    begin, starts = 0.0, []
    for _, share, _ in bars:
        starts.append(begin)
        begin += share
    labels = [label for label, _, _ in bars][::-1]
    shares = [share for _, share, _ in bars][::-1]
    drawn = axes.barh(labels, shares, left=starts[::-1], color=[c for _, _, c in bars][::-1], height=0.66)
    axes.bar_label(drawn, [f"{share:.1f}" for share in shares], padding=4, color=INK, fontsize=9)
    axes.set_xlim(0, 112)
    axes.set_xlabel("of 100 choices")
    axes.grid(axis="x", color=GRID)
    return svg_text(figure, "what becomes of 100 choices")


def reliability(table: Mapping[str, Any], name: str) -> str:
    """Draw observed against predicted probability, by bins of equal size, with intervals.

    Args:
        table: `bins` with `predicted`, `observed`, `low` and `high` each.
        name: of the probability.
    """
    bins = table["bins"]
    figure, axes = new_axes(3.6, 3.3)
    predicted = [100 * b["predicted"] for b in bins]
    observed = [100 * b["observed"] for b in bins]
    end = max([*predicted, *(100 * b["high"] for b in bins), 1e-6]) * 1.05
    axes.plot([0, end], [0, end], color=INK, linewidth=0.8, linestyle="--")
    below = [max(o - 100 * b["low"], 0.0) for o, b in zip(observed, bins, strict=True)]
    above = [max(100 * b["high"] - o, 0.0) for o, b in zip(observed, bins, strict=True)]
    axes.errorbar(
        predicted,
        observed,
        yerr=[below, above],
        color=ACCENT,
        ecolor=BAR,
        marker="o",
        markersize=4,
        capsize=2.0,
    )
    axes.set_xlim(0, end)
    axes.set_ylim(0, end)
    axes.set_xlabel("predicted, %")
    axes.set_ylabel("observed, %")
    axes.set_title(f"P({name})", fontsize=10, color=INK)
    axes.grid(color=GRID)
    return svg_text(figure, f"reliability of the probability of a {name}")


def _limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 0.1
    return low - margin, high + margin


def learning_curve(training: Training) -> str:
    """Draw the loss of a training by step, and its validation metric, each with its own axis."""
    curve, title = training.curve, training.name.replace("_", " ")
    figure, axes = new_axes(3.6, 2.8)
    axes.set_title(title, fontsize=10, color=INK)
    axes.set_xlabel(training.unit)
    drawn = axes
    if curve.loss:
        axes.plot(*zip(*curve.loss, strict=True), color=OTHERS[0], linewidth=1.2)
        axes.set_ylabel("loss", color=OTHERS[0])
        axes.set_ylim(*_limits([value for _, value in curve.loss]))
        if curve.validation:
            drawn = axes.twinx()
            drawn.spines[["top", "left"]].set_visible(False)
            drawn.spines[["right", "bottom"]].set_color(GRID)
            drawn.tick_params(colors=INK, length=0)
    if curve.validation:
        drawn.plot(
            *zip(*curve.validation, strict=True), color=ACCENT, marker="o", markersize=3, linewidth=1.6
        )
        drawn.set_ylabel(f"validation {curve.metric}", color=ACCENT)
        drawn.set_ylim(*_limits([value for _, value in curve.validation]))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.grid(axis="y", color=GRID)
    return svg_text(figure, f"learning curve of {title}")
