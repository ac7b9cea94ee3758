"""Learning curves: what a training logged by step, kept after its checkpoints are gone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

CURVES_FILE = "curves.json"
MOST_POINTS = 400
"""Points per curve on disk; more are averaged in groups of neighbours."""
METRICS = {"valid_recall": "recall@10", "valid_ndcg": "ndcg@10"}
"""Metric by the name under which a module logs it."""

Point = tuple[int, float]
"""Step, counted from 1 across epochs, and value."""


def thinned(points: Sequence[Point], most: int = MOST_POINTS) -> list[Point]:
    """Return at most `most` points: groups of equal size, each as its last step and its mean value."""
    size = -(-len(points) // most) or 1
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


@dataclass(frozen=True)
class Curve:
    """The curve of one training."""

    loss: list[Point]
    """Training loss of single steps, at every tenth, or means of neighbours where there are many."""
    validation: list[Point]
    """Validation metric at the end of every epoch; empty where nothing was validated."""
    metric: str | None
    """Name of the validation metric."""

    @classmethod
    def of(cls, loss: Sequence[Point], validation: Sequence[Point], monitor: str | None) -> Curve:
        """Return the curve of what a training logged; values that are not finite are left out."""
        finite = [(step, value) for step, value in loss if math.isfinite(value)]
        metric = None if monitor is None else METRICS.get(monitor, monitor)
        return cls(thinned(finite), list(validation), metric)


def write_curves(folder: Path, curves: Mapping[str, Curve]) -> None:
    """Write `curves.json` into a step's folder: training -> losses and metrics as `[step, value]` pairs."""
    text = json.dumps({name: asdict(curve) for name, curve in curves.items()}, allow_nan=False)
    (folder / CURVES_FILE).write_text(text + "\n", encoding="utf-8")


def read_curves(folder: Path) -> dict[str, Curve]:
    """Return the curves in a step's folder, none where there is no file."""
    path = folder / CURVES_FILE
    if not path.is_file():
        return {}
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: Curve(
            [(int(step), float(value)) for step, value in part["loss"]],
            [(int(step), float(value)) for step, value in part["validation"]],
            part["metric"],
        )
        for name, part in stored.items()
    }
