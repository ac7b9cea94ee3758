"""Scene: the run's metrics; the gain of fine-tuning, and the system beside the best baselines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from serving.cli.story.screens import Screen

HEADLINE = "recall@10"
BEST = 3
"""Number of baselines shown."""


def measured_values(metrics: Mapping[str, Any]) -> dict[str, dict[str, float | None]]:
    """Return system -> metric -> value on test, or on validation if test was not measured."""
    values: dict[str, dict[str, float | None]] = metrics[metrics["protocol"]["measured"]]
    return values


def baselines(metrics: Mapping[str, Any]) -> list[str]:
    """Return the baselines, best first."""
    values, protocol = measured_values(metrics), metrics["protocol"]
    own = (protocol["system"], *protocol["parts"])
    return sorted((n for n in values if n not in own), key=lambda n: -(values[n][HEADLINE] or 0.0))


def _p_value(test: Mapping[str, Any] | None) -> str:
    """Return a formatted p-value; empty where there is none."""
    p = None if test is None else test["p_value"]
    return "" if p is None else "p < .001" if p < 0.001 else f"p = {p:.3f}"


def show_measured(metrics: Mapping[str, Any], training: Mapping[str, Any], screen: Screen) -> None:
    """Print a short table of the evaluation, and what fine-tuning the text encoder gained."""
    protocol, values = metrics["protocol"], measured_values(metrics)
    window, system = protocol["measured"], protocol["system"]
    rivals = baselines(metrics)
    names = [system, *rivals[:BEST]]
    tests = metrics["significance"][window]
    rows = []
    for name in names:
        cells = [f"{values[name][metric] or 0.0:.4f}" for metric in (HEADLINE, "ndcg@10")]
        description = protocol["baselines"].get(name, "what is served")
        rows.append([name, *cells, _p_value(tests.get(name, {}).get(HEADLINE)), description])
    screen.table(("=system", "=recall@10", "=ndcg@10", "=p of recall", "what it is"), rows)
    screen.say(
        f"{protocol['queries'][window]:,} shoppers, asked at the beginning of a time that no model has seen",
        f"({window}); right is what they then chose, of all {protocol['items']:,} items. Below it the",
        f"best {len(names) - 1} of {len(rivals)} baselines (paired t test of recall); more in report.html.",
    )
    tuned = training.get("stage_one")
    if tuned is None:
        screen.say("The text encoder was used as it comes.")
        return
    before, after = tuned["before"], max(tuned["validation_recall"], default=tuned["before"])
    if after > before:
        screen.say(
            f"Fine-tuning the text encoder: from texts alone, {before:.4f} of what is bought next was among",
            f"the first 10 of the whole catalogue before, and {after:.4f} after ({after / before - 1:+.0%};",
            "validation).",
        )
    else:
        screen.say(
            f"Fine-tuning the text encoder gained nothing on validation ({before:.4f}) and was dropped."
        )
