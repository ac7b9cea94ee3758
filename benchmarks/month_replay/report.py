"""The figures of a replay: recall and ndcg by day and arm, every night's outcome, a table and a plot."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console

from conf.errors import InputError
from ranking.evaluation.significance import bootstrap_intervals, paired_test

ARMS: Final = ("retrained", "live", "frozen")
METRICS: Final = ("recall@10", "ndcg@10")
K: Final = 10
NAMES: Final = {
    "retrained": "retrained every night", "live": "never retrained, events counted live",
    "frozen": "never retrained, no events",
}  # fmt: skip
COLOURS: Final = {"retrained": "#2a9d75", "live": "#3d85c6", "frozen": "#8a8f98"}
"""Legible on white and on black."""
_INK: Final = "#7d8590"
_BAD: Final = "#d9534f"
_SEED: Final = 0


def quality(listed: Sequence[str], bought: Sequence[str]) -> tuple[float, float]:
    """Return recall@10 and ndcg@10 of a list; every bought item is equally relevant.

    Args:
        listed: best first.
        bought: distinct items, one or more.
    """
    wanted = set(bought)
    gains = [item in wanted for item in listed[:K]]
    discounts = 1.0 / np.log2(np.arange(2, K + 2))
    best = discounts[: min(len(wanted), K)].sum()
    found = float(np.dot(discounts[: len(gains)], gains))
    return sum(gains) / len(wanted), found / float(best)


def _values(day: Mapping[str, Any]) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Return recall@10 and ndcg@10 of every shopper by arm, [shoppers, 2]."""
    return {
        arm: np.array([
            quality(made["items"], basket["items"])
            for made, basket in zip(day["lists"][arm], day["baskets"], strict=True)
        ])
        for arm in ARMS
    }  # fmt: skip


def _with_interval(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, list[float]]:
    """Return mean, lower and upper end of the 95 % interval of each metric."""
    low, high = bootstrap_intervals(values, seed=_SEED)
    means = values.mean(axis=0)
    return {
        name: [round(float(v), 4) for v in (means[at], low[at], high[at])] for at, name in enumerate(METRICS)
    }


def summary(folder: Path) -> dict[str, Any]:
    """Return one record a day, and the whole month: means, and paired differences of the retrained arm.

    The interval of a difference is over shoppers' days; the p-value is of a sign-flip test.

    Raises:
        InputError: no day is finished.
    """
    path = folder / "days.json"
    records: list[dict[str, Any]] = json.loads(path.read_text()) if path.is_file() else []
    if not records:
        raise InputError(f"{folder}: no day is finished")
    days, all_values = [], []
    for record in records:
        values = _values(json.loads((folder / "lists" / f"{record['day']}.json").read_text()))
        days.append({**record, "arms": {arm: _with_interval(values[arm]) for arm in ARMS}})
        all_values.append(values)
    whole = {arm: np.concatenate([values[arm] for values in all_values]) for arm in ARMS}
    found: dict[str, Any] = {
        "days": days,
        "lists": len(whole["live"]),
        "arms": {arm: _with_interval(whole[arm]) for arm in ARMS},
        "differences": {},
        "nights": _nights(records),
    }
    for arm in ARMS[1:]:
        test = paired_test(whole["retrained"], whole[arm], seed=_SEED)
        found["differences"][arm] = {
            name: {
                "difference": round(float(test.difference[at]), 4),
                "interval": [round(float(test.low[at]), 4), round(float(test.high[at]), 4)],
                "p_value": round(float(test.p_permutation[at]), 4),
            }
            for at, name in enumerate(METRICS)
        }
    return found


def _nights(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return how the nights ended, by kind of delivery."""
    good = [record for record in records if record["planted"] is None]
    bad = [record for record in records if record["planted"] is not None]
    published = [record["night"] for record in good if record["night"]["exit_code"] == 0]
    trained = [night["cpu_seconds"] for night in published if night["cpu_seconds"] is not None]
    return {
        "good": len(good),
        "good_published": len(published),
        "bad": len(bad),
        "bad_refused": sum(r["night"]["exit_code"] == 10 for r in bad),
        "served_model_kept": sum(r["night"]["served"] == r["served_before"] for r in bad),
        "median_cpu_seconds": round(float(np.median(trained)), 1) if trained else None,
    }


def _cell(interval: Sequence[float]) -> str:
    mean, low, high = (f"{value:.4f}".removeprefix("0") for value in interval)
    return f"{mean} ({low} to {high})"


def table(found: Mapping[str, Any]) -> str:
    """Return the result as Markdown: the month, then day by day."""
    lines = ["| arm | recall@10 | ndcg@10 |", "| --- | --- | --- |"]
    for arm in ARMS:
        lines.append(
            f"| {NAMES[arm]} | " + " | ".join(_cell(found["arms"][arm][name]) for name in METRICS) + " |"
        )
    lines += ["", "| retrained minus | metric | difference (95 %) | p |", "| --- | --- | --- | --- |"]
    for arm, metrics in found["differences"].items():
        for name, test in metrics.items():
            low, high = test["interval"]
            lines.append(
                f"| {NAMES[arm]} | {name} | {test['difference']:+.4f} ({low:+.4f} to {high:+.4f}) | "
                f"{test['p_value']:.4f} |"
            )
    lines += [
        "",
        "| day | shoppers | recall@10: retrained, live, frozen | night | CPU s |",
        "| --- | --- | --- | --- | --- |",
    ]
    for day in found["days"]:
        recalls = ", ".join(f"{day['arms'][arm]['recall@10'][0]:.3f}".removeprefix("0") for arm in ARMS)
        night = day["night"]
        words = {0: "0, published", 10: "10, refused", 11: "11, too little"}
        outcome = words.get(night["exit_code"], str(night["exit_code"]))
        if night["exit_code"] != 0:
            planted = f"{day['planted'].replace('_', ' ')}: " if day["planted"] else ""
            outcome += f" ({planted}{_first(night['reason'])})"
        lines.append(
            f"| {day['day']} | {day['shoppers']} | {recalls} | {outcome} | {night['cpu_seconds'] or 0:.0f} |"
        )
    return "\n".join(lines) + "\n"


def _first(reason: str) -> str:
    """Return the first of several reasons, in one cell."""
    return reason.split("; ")[0].replace("|", "/")


def print_summary(console: Console, found: Mapping[str, Any]) -> None:
    """Print the month in a few lines."""
    for line in table(found).splitlines()[: len(ARMS) + 10]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"nights: {found['nights']}", markup=False, highlight=False, soft_wrap=True)


def drawing(found: Mapping[str, Any]) -> str:
    """Return the plot as SVG text: recall@10 day by day, and the nights that were refused."""
    days = found["days"]
    places = np.arange(len(days))
    with matplotlib.rc_context(
        {"svg.fonttype": "none", "svg.hashsalt": "month", "font.family": "sans-serif"}
    ):
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        axes = figure.subplots()
        for arm in reversed(ARMS):
            means, low, high = np.array([day["arms"][arm]["recall@10"] for day in days]).T
            axes.fill_between(places, low, high, color=COLOURS[arm], alpha=0.12, linewidth=0)
            axes.plot(
                places, means, color=COLOURS[arm], label=NAMES[arm], linewidth=2, marker="o", markersize=3
            )
        top = axes.get_ylim()[1]
        for place, day in zip(places, days, strict=True):
            if day["night"]["exit_code"] != 0:
                axes.axvline(place + 0.5, color=_BAD, linestyle=":", linewidth=1.2)
                words = (day["planted"] or f"exit code {day['night']['exit_code']}").replace("_", " ")
                axes.text(
                    place + 0.6, top, f"refused: {words}", color=_BAD, rotation=90, fontsize=7,
                    verticalalignment="top",
                )  # fmt: skip
        axes.set_xticks(places[::3], [day["day"][5:] for day in days[::3]])
        axes.set_ylabel("recall@10 of the day's shoppers", color=_INK)
        axes.set_xlabel("day", color=_INK)
        axes.tick_params(colors=_INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_INK)
        legend = axes.legend(frameon=False, fontsize=9, loc="lower left", ncols=3)
        for text in legend.get_texts():
            text.set_color(_INK)
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    return buffer.getvalue()
