"""Popularity for a shop that opened with a catalogue and no history: counted as events come in."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping

import numpy as np

from serving.model import Model


class LivePopularity:
    """Counts recorded events for a model that has learnt from none; idle for any other model."""

    def __init__(self, model: Model) -> None:
        """Start from zero."""
        self.active = int(model.manifest.get("counts", {}).get("events", 1)) == 0
        self._model = model
        self._lock = threading.Lock()
        self._counts = np.zeros(len(model.catalogue), dtype=np.float32)

    def add(self, item_counts: Mapping[str, int]) -> None:
        """Add stored events, by item id; items outside the catalogue are left out."""
        with self._lock:
            for item_id, count in item_counts.items():
                row = self._model.catalogue.row(item_id)
                if row is not None:
                    self._counts[row] += count
            self._model.recommender.observe_popularity(self._counts)

    def count(self, item_ids: Iterable[str]) -> None:
        """Add one event per item id."""
        counts: dict[str, int] = {}
        for item_id in item_ids:
            counts[item_id] = counts.get(item_id, 0) + 1
        self.add(counts)
