"""The parts of a result as plain values: means, slices, intervals and tests of every system."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from features.data.dataset import Dataset, FloatArray, LongArray
from features.data.splits import Queries
from ranking.evaluation.list_providers import Answer
from ranking.evaluation.metrics import (
    HEADLINE,
    catalogue_coverage,
    intra_list_diversity,
    means,
    novelty,
    popularity_lift,
)
from ranking.evaluation.significance import bootstrap_intervals, paired_test
from ranking.evaluation.slices import Slice
from ranking.evaluation.stage_recall import ranked_values

LEVEL = 0.95
TESTED = (f"recall@{HEADLINE}", f"ndcg@{HEADLINE}", "mrr")


def system_summary(
    answer: Answer,
    dataset: Dataset,
    queries: Queries,
    counts: LongArray,
    vectors: FloatArray | None,
) -> dict[str, float | None]:
    """Return the means of the accuracy metrics, and the beyond-accuracy metrics."""
    summary = means(answer.values)
    summary[f"coverage@{HEADLINE}"] = catalogue_coverage(answer.items, len(dataset.catalogue), HEADLINE)
    summary[f"novelty@{HEADLINE}"] = novelty(answer.items, counts, HEADLINE)
    summary[f"diversity@{HEADLINE}"] = (
        None if vectors is None else intra_list_diversity(answer.items, vectors, HEADLINE)
    )
    summary[f"popularity_lift@{HEADLINE}"] = popularity_lift(
        answer.items, dataset.events, queries, counts, HEADLINE
    )
    return summary


def slice_summary(slices: Sequence[Slice], answers: Mapping[str, Answer]) -> dict[str, Any]:
    """Return the size of each slice, and the means of every system in it."""
    return {
        part.name: {
            "about": part.about,
            "queries": len(part.queries),
            "targets": len(part.queries.targets),
            "systems": {
                name: means(ranked_values(answer.items[part.index], part.queries))
                for name, answer in answers.items()
            },
        }
        for part in slices
    }


def confidence(answers: Mapping[str, Answer], resamples: int, seed: int) -> dict[str, Any]:
    """Return `{system: {metric: [low, high]}}` from one set of resamples."""
    columns = [(system, metric) for system, a in answers.items() for metric in a.values]
    values = np.stack([answers[system].values[metric] for system, metric in columns], axis=1)
    low, high = bootstrap_intervals(values, resamples, seed, LEVEL)
    intervals: dict[str, Any] = {system: {} for system in answers}
    for (system, metric), a, b in zip(columns, low, high, strict=True):
        intervals[system][metric] = [float(a), float(b)]
    return intervals


def significance(answers: Mapping[str, Answer], name: str, resamples: int, seed: int) -> dict[str, Any]:
    """Compare the system with every baseline: `{baseline: {metric: {...}}}`."""
    others = [other for other in answers if other != name]
    if not others:
        return {}
    own = np.stack([answers[name].values[metric] for _ in others for metric in TESTED], axis=1)
    theirs = np.stack([answers[other].values[metric] for other in others for metric in TESTED], axis=1)
    test = paired_test(own, theirs, resamples=resamples, seed=seed, level=LEVEL)
    columns = [(other, metric) for other in others for metric in TESTED]
    compared: dict[str, Any] = {other: {} for other in others}
    for i, (other, metric) in enumerate(columns):
        compared[other][metric] = {
            "difference": float(test.difference[i]),
            "low": float(test.low[i]),
            "high": float(test.high[i]),
            "p_value": float(test.p_value[i]),
            "p_permutation": float(test.p_permutation[i]),
        }
    return compared


def plain_values(value: object) -> object:
    """Return a value with NaN and infinities replaced by null, recursively."""
    if isinstance(value, dict):
        return {str(key): plain_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
