"""Recall of every stage of a recommender, which locates lost targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from features.data.dataset import BoolArray, FloatArray, IntArray
from features.data.splits import Queries
from ranking.evaluation.losses import TargetPaths
from ranking.evaluation.metrics import HEADLINE as HEADLINE
from ranking.evaluation.metrics import ValueArray, means, ranking_metrics, recall_at

STAGE_DEPTH = 200
"""Cutoff of candidate recall, in addition to the full depth."""


@dataclass(frozen=True)
class SystemLists:
    """A system's results for a block of queries, stage by stage; rows padded with -1."""

    items: IntArray  # [queries, 100] final list, best first
    scores: FloatArray  # [queries, 100]
    sources: Mapping[str, IntArray]
    """Candidates of each source, [queries, n] each, best first."""
    union: IntArray  # [queries, n] after merging, in candidate order
    filtered: IntArray  # [queries, n] after filters, in candidate order
    paths: TargetPaths | None = None
    """What became of each target; None for a system that does not say."""
    probabilities: FloatArray | None = None
    """[queries, 10, 2] P(click) and P(purchase) of the first ten items; None for a system without any."""


class System(Protocol):
    """A system under evaluation, as of one moment."""

    def __call__(self, queries: Queries, allowed: BoolArray | None = None) -> SystemLists:
        """Return lists for the queries, from the whole catalogue or from the `allowed` [items] rows only."""


def _candidate_values(candidates: IntArray, queries: Queries) -> dict[str, ValueArray]:
    """Return the metrics of a candidate stage, [queries] each."""
    at_depth, at_all = recall_at(candidates, queries, (STAGE_DEPTH, max(candidates.shape[1], 1)))
    sizes: ValueArray = (candidates >= 0).sum(axis=1).astype(np.float64)
    return {f"recall@{STAGE_DEPTH}": at_depth, "recall@all": at_all, "candidates": sizes}


def ranked_values(items: IntArray, queries: Queries) -> dict[str, ValueArray]:
    """Return the metrics of a ranking, [queries] each."""
    metrics = ranking_metrics(items[:, :HEADLINE], queries, (HEADLINE,))
    return {name: metrics[name] for name in (f"recall@{HEADLINE}", f"ndcg@{HEADLINE}")}


def stage_values(lists: SystemLists, queries: Queries) -> dict[str, dict[str, ValueArray]]:
    """Return the metrics of every stage of a block, of sources under `source/NAME`."""
    stages = {f"source/{name}": _candidate_values(found, queries) for name, found in lists.sources.items()}
    stages["union"] = _candidate_values(lists.union, queries)
    stages["filtered"] = _candidate_values(lists.filtered, queries)
    stages["candidate_order"] = ranked_values(lists.filtered, queries)
    stages["ranked_order"] = ranked_values(lists.items, queries)
    return stages


def stage_summary(stages: dict[str, dict[str, ValueArray]]) -> dict[str, Any]:
    """Return the means of stages over queries, with the sources in one group."""
    averaged = {stage: means(values) for stage, values in stages.items()}
    sources = {s.removeprefix("source/"): v for s, v in averaged.items() if s.startswith("source/")}
    return {"sources": sources, **{s: v for s, v in averaged.items() if not s.startswith("source/")}}
