"""Popularity for a shop that opened with a catalogue and no history: counted as events come in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from features.dataset import FloatArray
from serving.model import Model


class LivePopularity:
    """Counts recorded events for a model that has learnt from none; for the event loop's thread."""

    def __init__(self, model: Model) -> None:
        """Start from zero."""
        self.active = int(model.manifest.get("counts", {}).get("events", 1)) == 0
        """Whether counts are wanted; other models know better from training."""
        self._counts = np.zeros(len(model.catalogue), dtype=np.float32)

    def add(self, model: Model, item_counts: Mapping[str, int]) -> FloatArray:
        """Add events by item id, leaving unknown items out; return the count of every row, [items]."""
        missing = len(model.catalogue) - len(self._counts)
        if missing > 0:
            self._counts = np.pad(self._counts, (0, missing))
        for item_id, count in item_counts.items():
            row = model.catalogue.row(item_id)
            if row is not None:
                self._counts[row] += count
        return self._counts.copy()


def count_items(item_ids: Iterable[str]) -> dict[str, int]:
    """Count equal ids."""
    counts: dict[str, int] = {}
    for item_id in item_ids:
        counts[item_id] = counts.get(item_id, 0) + 1
    return counts
