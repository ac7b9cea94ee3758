"""Growth exponents, the Markdown table and the plots of measured steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

Results = Mapping[int, Mapping[str, Mapping[str, Any]]]
"""Events -> step -> cost, as `runner.as_json` has it."""
_SHOWN: Final = {"cpu_s": "CPU seconds", "peak_anonymous_mib": "peak memory, MiB"}


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of log(value) over log(size) by least squares; NaN with fewer than two sizes.

    0 is a constant, 1 grows in proportion, 2 with the square.
    """
    if len(sizes) < 2 or min(values) <= 0:
        return float("nan")
    return float(np.polyfit(np.log10(sizes), np.log10(values), 1)[0])


def _series(results: Results, step: str, field: str) -> tuple[list[int], list[float]]:
    """Return the sizes at which a step succeeded, and its values there."""
    sizes = [s for s in sorted(results) if results[s].get(step, {}).get("exit_code") == 0]
    return sizes, [float(results[size][step][field]) for size in sizes]


def _cell(cost: Mapping[str, Any] | None) -> str:
    """Return CPU seconds and peak memory of a step, or why there are none."""
    if cost is None:
        return "not run"
    if cost["out_of_memory"]:
        return "out of memory"
    if cost["exit_code"]:
        return f"exit code {cost['exit_code']}"
    return f"{cost['cpu_s']:,.0f} s, {cost['peak_anonymous_mib']:,.0f} ({cost['peak_pss_mib']:,.0f})"


def markdown(results: Results) -> str:
    """Return a row per step: its cost at each size, and the exponents of its time and memory."""
    steps = list(dict.fromkeys(step for costs in results.values() for step in costs))
    sizes = sorted(results)
    heads = ["step", *(f"{size:,} events" for size in sizes), "time grows by", "memory grows by"]
    lines = [" | ".join(["", *heads, ""]).strip(), " | ".join(["", *["---"] * len(heads), ""]).strip()]
    for step in steps:
        grown = [exponent(*_series(results, step, field)) for field in _SHOWN]
        cells = [_cell(results[size].get(step)) for size in sizes]
        powers = ["" if np.isnan(power) else f"{power:.2f}" for power in grown]
        lines.append(" | ".join(["", step, *cells, *powers, ""]).strip())
    return "\n".join(lines) + "\n"


def plot(results: Results, path: Path) -> None:
    """Draw time and memory of each step over the events, both axes logarithmic, as SVG."""
    steps = list(dict.fromkeys(step for costs in results.values() for step in costs))
    with mpl.rc_context({"svg.hashsalt": "growth", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        axes = figure.subplots(1, len(_SHOWN))
        for ax, (field, label) in zip(axes, _SHOWN.items(), strict=True):
            for step in steps:
                sizes, values = _series(results, step, field)
                ax.plot(sizes, values, marker="o", label=step)
            ax.set(xscale="log", yscale="log", xlabel="events", ylabel=label)
            ax.grid(alpha=0.3)
        figure.legend(*axes[-1].get_legend_handles_labels(), loc="outside right center", fontsize="small")
        figure.savefig(path, format="svg", metadata={"Date": None})
