"""Running a system or a baseline, and measuring its lists per query."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from conf.schema import LIST_DEPTH
from features.data.dataset import BoolArray, Dataset, FloatArray, IntArray
from features.data.splits import Queries
from ranking.baselines.registry import Baseline
from ranking.evaluation.losses import TargetPaths
from ranking.evaluation.metrics import ValueArray, ranking_metrics
from ranking.evaluation.stage_recall import System, stage_values

DEPTH = LIST_DEPTH
"""Items per list that are measured."""
BLOCK = 4096
"""Queries per call of a system; bounds the memory of its candidates."""


@dataclass(frozen=True)
class Answer:
    """One system's lists for some queries."""

    items: IntArray  # [queries, DEPTH]
    scores: FloatArray  # [queries, DEPTH]
    values: dict[str, ValueArray]
    """Accuracy metrics per query, [queries] each."""
    seconds: float
    stages: dict[str, dict[str, ValueArray]] = field(default_factory=dict)
    """Metrics of each stage, per query; empty for a baseline."""
    paths: TargetPaths | None = None
    """What became of each target; None for a system that does not say."""
    probabilities: FloatArray | None = None
    """[queries, 10, 2] P(click) and P(purchase) of the first ten items; None for a system without any."""


ListProvider = Callable[[Queries, BoolArray | None], Answer]
"""Returns lists from the whole catalogue (None) or from a mask of its items, [items]."""


def _padded(array: npt.NDArray[np.generic], fill: float) -> npt.NDArray[np.generic]:
    """Cut or pad lists to `DEPTH` columns."""
    width = min(array.shape[1], DEPTH)
    padded = np.full((len(array), DEPTH), fill, dtype=array.dtype)
    padded[:, :width] = array[:, :width]
    return padded


def system_lister(system: System, ks: Sequence[int]) -> ListProvider:
    """Return a provider that runs a system block by block; candidates are measured and dropped."""

    def provide(queries: Queries, allowed: BoolArray | None) -> Answer:
        items = np.full((len(queries), DEPTH), -1, dtype=np.int32)
        scores = np.full((len(queries), DEPTH), -np.inf, dtype=np.float32)
        measured: list[dict[str, dict[str, ValueArray]]] = []
        paths: list[TargetPaths] = []
        probabilities: list[FloatArray] = []
        seconds = 0.0
        for start in range(0, len(queries), BLOCK):
            part = queries.select(np.arange(start, min(start + BLOCK, len(queries)), dtype=np.int64))
            begin = time.perf_counter()
            lists = system(part) if allowed is None else system(part, allowed)
            seconds += time.perf_counter() - begin
            block = slice(start, start + len(part))
            items[block], scores[block] = _padded(lists.items, -1), _padded(lists.scores, -np.inf)
            measured.append(stage_values(lists, part))
            if lists.paths is not None:
                paths.append(lists.paths)
            if lists.probabilities is not None:
                probabilities.append(lists.probabilities)
        if any(m.keys() != measured[0].keys() for m in measured):
            raise ValueError("a system must report the same candidate sources for every block of queries")
        joined = {
            stage: {name: np.concatenate([m[stage][name] for m in measured]) for name in values}
            for stage, values in (measured[0] if measured else {}).items()
        }
        followed = TargetPaths.joined(paths) if paths else None
        likely = np.concatenate(probabilities) if probabilities else None
        return Answer(items, scores, ranking_metrics(items, queries, ks), seconds, joined, followed, likely)

    return provide


def baseline_lister(
    baseline: Baseline, dataset: Dataset, ks: Sequence[int], exclude_seen: bool
) -> ListProvider:
    """Return a provider that runs a fitted baseline."""

    def provide(queries: Queries, allowed: BoolArray | None) -> Answer:
        begin = time.perf_counter()
        items, scores = baseline.recommend(dataset.events, queries, DEPTH, exclude_seen, allowed)
        seconds = time.perf_counter() - begin
        return Answer(items, scores, ranking_metrics(items, queries, ks), seconds)

    return provide
