"""The parts of a result as plain values: means, slices, intervals and tests of every system."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from features.data import schema
from features.data.dataset import Dataset, FloatArray, LongArray
from features.data.splits import Queries
from ranking.evaluation.diagnostics.calibration import calibration_summary
from ranking.evaluation.diagnostics.exposure import Exposure
from ranking.evaluation.list_providers import Answer
from ranking.evaluation.many_tests import benjamini_hochberg, holm
from ranking.evaluation.metrics import (
    HEADLINE,
    catalogue_coverage,
    intra_list_diversity,
    means,
    novelty,
    popularity_lift,
    target_ranks,
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
    exposure: Exposure,
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
    return summary | exposure.summary(answer.items)


def calibration(
    dataset: Dataset, queries: Queries, answer: Answer, resamples: int, seed: int
) -> dict[str, Any] | None:
    """Return the reliability of a system's probabilities on the first ten items of its lists."""
    ranks = target_ranks(answer.items[:, :HEADLINE], queries)
    owners = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
    listed = ranks > 0
    clicks = np.array([kind in schema.CLICK_KINDS for kind in dataset.kinds], dtype=np.bool_)
    outcomes = np.zeros((len(queries), HEADLINE, 2), dtype=np.bool_)
    outcomes[owners[listed], ranks[listed] - 1, 0] = True
    outcomes[owners[listed], ranks[listed] - 1, 1] = ~clicks[queries.target_kinds[listed]]
    return calibration_summary(answer.probabilities, outcomes, resamples, seed, LEVEL)


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
    by_holm, by_rate = holm(test.p_value), benjamini_hochberg(test.p_value)
    for i, (other, metric) in enumerate(columns):
        compared[other][metric] = {
            "difference": float(test.difference[i]),
            "low": float(test.low[i]),
            "high": float(test.high[i]),
            "p_value": float(test.p_value[i]),
            "p_permutation": float(test.p_permutation[i]),
            "p_holm": float(by_holm[i]),
            "p_bh": float(by_rate[i]),
            "minimum_detectable": float(test.detectable[i]),
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
