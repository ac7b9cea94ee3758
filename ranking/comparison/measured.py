"""One system's lists on a window, and what is measured of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from features.data.dataset import FloatArray, IntArray
from ranking.comparison.window import Window
from ranking.evaluation.list_providers import DEPTH, Answer
from ranking.evaluation.metrics import ranking_metrics
from ranking.evaluation.summaries import slice_summary, system_summary


@dataclass(frozen=True)
class Measured:
    """A system's lists on the queries of a window."""

    name: str
    """Its name in tables."""
    answer: Answer
    """Lists, and metrics per query. Rows from the catalogue's size on are items that the dataset lacks."""
    facts: dict[str, Any]
    """What it is: kind, place, version, end of its data."""
    catalogue: Sequence[str]
    """Ids of the items that it can list."""
    others: dict[int, str] = field(default_factory=dict)
    """Ids of the listed rows that the dataset lacks."""

    def summary(self, window: Window) -> dict[str, float | None]:
        """Return its means, as `shelfwise evaluate` writes them."""
        items, count = self.answer.items, len(window.dataset.catalogue)
        inside = items < count
        known = self.answer if inside.all() else _with_items(self.answer, np.where(inside, items, -1))
        return system_summary(
            known, window.dataset, window.queries, window.counts, window.vectors, window.exposure
        )

    def slices(self, window: Window) -> dict[str, Any]:
        """Return the slices of the window with its means."""
        return slice_summary(window.slices, {self.name: self.answer})


def _with_items(answer: Answer, items: IntArray) -> Answer:
    return Answer(items, answer.scores, answer.values, answer.seconds)


def measure(
    name: str,
    window: Window,
    items: IntArray,
    scores: FloatArray,
    facts: dict[str, Any],
    others: dict[int, str] | None = None,
    catalogue: Sequence[str] | None = None,
    seconds: float = 0.0,
) -> Measured:
    """Measure lists on the queries of a window.

    Args:
        name: of the system.
        window: the queries.
        items: [queries, any] catalogue rows, best first; -1 is padding.
        scores: [queries, any].
        facts: what the system is.
        others: ids of rows beyond the catalogue.
        catalogue: ids of the items that the system can list; None takes those of the dataset.
        seconds: that the lists took.
    """
    width = min(items.shape[1], DEPTH)
    rows = np.full((len(items), DEPTH), -1, dtype=np.int32)
    values = np.full((len(items), DEPTH), -np.inf, dtype=np.float32)
    rows[:, :width], values[:, :width] = items[:, :width], scores[:, :width]
    answer = Answer(rows, values, ranking_metrics(rows, window.queries, window.ks), seconds)
    return Measured(
        name, answer, facts, window.dataset.catalogue.ids if catalogue is None else catalogue, others or {}
    )
