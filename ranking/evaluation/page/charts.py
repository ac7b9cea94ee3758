"""Plots of systems, stages and slices as self-contained SVG text, drawn without global plotting state."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

ACCENT = "#0b6e4f"
INK = "#1f2933"
GRID = "#e4e7eb"
BAR = "#b8c4ce"
STAGE = "#5a8f7b"
VARIABLES = {
    ACCENT: "var(--accent)", INK: "var(--ink)", GRID: "var(--line)", BAR: "var(--bar)", STAGE: "var(--stage)",
    "#0072b2": "var(--blue)",
}  # fmt: skip
"""The page's own colour for each that is drawn here, so that plots are light or dark with the page."""
OTHERS = ("#0072b2", "#d55e00", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f", "#8c564b", "#bcbd22")
"""Okabe and Ito's colours and a few more, distinguishable for colour-blind readers."""


def svg_text(figure: Figure, name: str) -> str:
    """Return a figure as inline SVG, deterministic, with ids that differ between figures."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    # No math mode: names may contain dollar signs; some labels are created while saving.
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    with matplotlib.rc_context(
        {"svg.hashsalt": f"shelfwise-{name}", "svg.fonttype": "none", "text.parse_math": False}
    ):
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    drawn = buffer.getvalue()
    for colour, variable in VARIABLES.items():
        drawn = drawn.replace(colour, variable)
    return drawn[drawn.index("<svg") :].replace(
        'xmlns="http://www.w3.org/2000/svg"',
        f'xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{name}"',
    )


def new_axes(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of that size in inches, and its axes in the page's style."""
    with matplotlib.rc_context({"font.family": "sans-serif", "font.size": 10}):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.tick_params(colors=INK, length=0)
    axes.set_axisbelow(True)
    return figure, axes


def colours(systems: list[str], system: str) -> dict[str, str]:
    """Return the colour by name: the accent for the measured system, another for each baseline."""
    others = [name for name in systems if name != system]
    return {system: ACCENT} | {name: OTHERS[i % len(OTHERS)] for i, name in enumerate(others)}


def recall_curve(metrics: Mapping[str, Mapping[str, float | None]], ks: list[int], system: str) -> str:
    """Draw recall against list length, one line per system."""
    figure, axes = new_axes(7.2, 3.6)
    palette = colours(list(metrics), system)
    for name in sorted(metrics, key=lambda n: n == system):  # the system last, on top
        values = [metrics[name][f"recall@{k}"] or 0.0 for k in ks]
        axes.plot(
            ks,
            [100 * v for v in values],
            color=palette[name],
            label=name,
            marker="o",
            markersize=4 if name == system else 3,
            linewidth=2.6 if name == system else 1.4,
        )
    axes.set_xscale("log")
    axes.set_xticks(ks, [str(k) for k in ks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("items shown (k)")
    axes.set_ylabel("recall@k, %")
    axes.grid(axis="y", color=GRID)
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], frameon=False, fontsize=9)
    return svg_text(figure, "recall by list length")


def interval_bars(
    metrics: Mapping[str, Mapping[str, float | None]],
    confidence: Mapping[str, Mapping[str, list[float | None]]],
    metric: str,
    system: str,
) -> str:
    """Draw one metric of every system with its interval, best on top."""
    names = sorted(metrics, key=lambda n: metrics[n][metric] or 0.0)
    figure, axes = new_axes(7.2, 0.7 + 0.36 * len(names))
    values = [metrics[n][metric] or 0.0 for n in names]
    ends = [
        [v if end is None else end for end in confidence[n][metric]]
        for n, v in zip(names, values, strict=True)
    ]
    # A percentile interval may narrowly exclude its mean; whiskers must not be negative.
    below = [max(v - low, 0.0) for v, (low, _) in zip(values, ends, strict=True)]
    above = [max(high - v, 0.0) for v, (_, high) in zip(values, ends, strict=True)]
    axes.barh(
        names,
        values,
        xerr=[below, above],
        color=[ACCENT if n == system else BAR for n in names],
        ecolor=INK,
        error_kw={"elinewidth": 1.0, "capsize": 2.5},
        height=0.62,
    )
    axes.set_xlabel(f"{metric} with its 95 % interval")
    axes.grid(axis="x", color=GRID)
    return svg_text(figure, f"{metric} by system")


def stage_funnel(stages: Mapping[str, Any], shown: Mapping[str, float | None], ks: list[int]) -> str:
    """Draw the share of targets that survives each stage, from single sources to the first ten items.

    Args:
        stages: one window of the result's `stages`.
        shown: the system's metrics on that window.
        ks: cutoffs.
    """
    bars = [(f"source: {name}", values["recall@all"], BAR) for name, values in stages["sources"].items()]
    bars += [
        ("all sources together", stages["union"]["recall@all"], STAGE),
        ("after filters", stages["filtered"]["recall@all"], STAGE),
    ]
    bars += [
        (f"in the first {k} shown", shown[f"recall@{k}"], ACCENT) for k in sorted(ks, reverse=True) if k >= 10
    ]
    bars.reverse()
    figure, axes = new_axes(7.2, 0.7 + 0.34 * len(bars))
    labels = [label for label, _, _ in bars]
    values = [100 * (value or 0.0) for _, value, _ in bars]
    drawn = axes.barh(labels, values, color=[colour for _, _, colour in bars], height=0.66)
    axes.bar_label(drawn, [f"{v:.1f} %" for v in values], padding=4, color=INK, fontsize=9)
    axes.set_xlim(0, max([*values, 1.0]) * 1.12)
    axes.set_xlabel("targets still there, %")
    axes.grid(axis="x", color=GRID)
    return svg_text(figure, "what each stage keeps")


def slice_bars(slices: Mapping[str, Any], metric: str, system: str, rival: str | None) -> str:
    """Draw one metric per slice, the system beside its strongest baseline; empty slices are left out."""
    filled = {name: part for name, part in slices.items() if part["queries"]}
    names = list(filled)[::-1]
    figure, axes = new_axes(7.2, 0.8 + 0.42 * len(names))
    pair = [name for name in (system, rival) if name is not None]
    height = 0.76 / len(pair)
    for i, name in enumerate(pair):
        axes.barh(
            [row + (len(pair) - 1) * height / 2 - i * height for row in range(len(names))],
            [filled[part]["systems"][name][metric] or 0.0 for part in names],
            height=height,
            color=ACCENT if name == system else BAR,
            label=name,
        )
    axes.set_yticks(range(len(names)), [f"{n.replace('_', ' ')} ({filled[n]['queries']:,})" for n in names])
    axes.set_xlabel(metric)
    axes.grid(axis="x", color=GRID)
    if names:
        axes.legend(frameon=False, fontsize=9)
    return svg_text(figure, f"{metric} by slice")
