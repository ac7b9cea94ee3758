"""The systems that `shelfwise evaluate` measures: the published bundle, or the validated models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from conf.schema import PipelineConfig
from features.data.dataset import Dataset
from features.data.splits import Split
from features.data.statistics import Neighbours
from ranking.bundle.bundle import load_bundle
from ranking.bundle.store import VERSIONS, read_manifest
from ranking.evaluation.evaluation import WindowSystems
from ranking.evaluation.offline import USER_TOWER, ListsAfterEvent, offline_system, tower_system
from ranking.pipeline.publish import ARTIFACTS
from ranking.pipeline.validation import validation_recommender
from ranking.recommender import Recommender


@dataclass
class SystemsOfWindows:
    """Makes the system of a window, and its user tower alone, when the window is measured."""

    config: PipelineConfig
    dataset: Dataset
    split: Split
    exclude_seen: bool
    published: str | None
    """The version, already verified, that answers the `test` window; without one only `valid` is measured."""
    device: torch.device
    advance: Callable[[int], None]
    """Called with the number of queries that the system has answered."""
    _near: Neighbours | None = None
    """Nearest texts, the same in both windows, once they are known."""

    def make(self, window: str) -> WindowSystems:
        """Load a recommender and return what is measured of it."""
        recommender = self._load(window)
        events, diversity = self.dataset.events, self.config.rerank.diversity
        measured = "valid" if self.published is None else "test"
        return WindowSystems(
            offline_system(recommender, events, self.exclude_seen, self.advance, diversity),
            {USER_TOWER: tower_system(recommender, events, self.exclude_seen)},
            ListsAfterEvent.of(recommender, self.dataset, self.exclude_seen, diversity)
            if window == measured
            else None,
        )

    def _load(self, window: str) -> Recommender:
        if window == "valid":
            return validation_recommender(self.config, self.dataset, self.split, self._near)
        store = Path(self.config.work_dir) / ARTIFACTS
        assert self.published is not None
        manifest = read_manifest(store / VERSIONS / self.published)
        bundle = load_bundle(store, self.published, manifest=manifest, device=self.device)
        self._near = bundle.recommender.arrays.text_near
        return bundle.recommender
