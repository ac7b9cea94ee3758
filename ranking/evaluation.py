"""The offline evaluation: one protocol, one code path for the system and everything it is compared with.

`evaluate_lists` asks the system and the baselines the same validation and test queries over the whole
catalogue and returns a result of plain numbers; ranking/report.py writes and shows it. See
docs/evaluation.md.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from rich.console import Console

from conf.errors import InputError
from conf.schema import LIST_DEPTH, EvaluationConfig, SplitKind
from features.dataset import Dataset, FloatArray, IntArray, LongArray
from features.splits import Queries, Split
from ranking.baseline_lists import prefix_positions
from ranking.baselines import Baseline, BaselineInputs, fit_ends, make_baselines
from ranking.metrics import (
    ValueArray,
    catalogue_coverage,
    intra_list_diversity,
    means,
    novelty,
    popularity_lift,
    ranking_metrics,
)
from ranking.significance import bootstrap_intervals, paired_test
from ranking.slices import make_slices
from ranking.stages import HEADLINE, System, ranked_values, stage_summary, stage_values
from ranking.stages import SystemLists as SystemLists

FORMAT_VERSION = 1
DEPTH = LIST_DEPTH
"""Items per list that are kept and measured."""
LEVEL = 0.95
TESTED = (f"recall@{HEADLINE}", f"ndcg@{HEADLINE}", "mrr")
BLOCK = 4096
"""Queries given to the system at once; bounds the memory of its candidates."""
WINDOWS = ("valid", "test")

Number = TypeVar("Number", np.int32, np.float32)


@dataclass(frozen=True)
class Evaluation:
    """A result, and the test lists that it was computed from."""

    result: dict[str, Any]
    """Plain JSON values; see docs/evaluation.md."""
    queries: Queries
    """Test queries."""
    items: IntArray  # [test queries, 100]
    scores: FloatArray  # [test queries, 100]


@dataclass(frozen=True)
class _Answer:
    """One system's lists for one window."""

    items: IntArray  # [queries, DEPTH]
    scores: FloatArray  # [queries, DEPTH]
    values: dict[str, ValueArray]
    """Accuracy metrics per query, [queries] each."""
    seconds: float


def sample_queries(queries: Queries, most: int, seed: int) -> Queries:
    """Draw `most` queries without replacement, in their order; 0 or a larger number keeps all."""
    if not 0 < most < len(queries):
        return queries
    drawn = np.random.default_rng(seed).choice(len(queries), size=most, replace=False)
    return queries.select(np.sort(drawn))


def _deep(array: npt.NDArray[Number], fill: float) -> npt.NDArray[Number]:
    """Cut or pad lists to `DEPTH` columns."""
    width = min(array.shape[1], DEPTH)
    deep = np.full((len(array), DEPTH), fill, dtype=array.dtype)
    deep[:, :width] = array[:, :width]
    return deep


def _ask_system(
    system: System, queries: Queries, ks: Sequence[int]
) -> tuple[_Answer, dict[str, dict[str, ValueArray]]]:
    """Run the system block by block; candidates are measured and dropped, lists are kept."""
    items = np.full((len(queries), DEPTH), -1, dtype=np.int32)
    scores = np.full((len(queries), DEPTH), -np.inf, dtype=np.float32)
    measured: list[dict[str, dict[str, ValueArray]]] = []
    seconds = 0.0
    for start in range(0, len(queries), BLOCK):
        part = queries.select(np.arange(start, min(start + BLOCK, len(queries)), dtype=np.int64))
        begin = time.perf_counter()
        lists = system(part)
        seconds += time.perf_counter() - begin
        place = slice(start, start + len(part))
        items[place], scores[place] = _deep(lists.items, -1), _deep(lists.scores, -np.inf)
        measured.append(stage_values(lists, part))
    if any(m.keys() != measured[0].keys() for m in measured):
        raise ValueError("a system must report the same candidate sources for every block of queries")
    joined = {
        stage: {name: np.concatenate([m[stage][name] for m in measured]) for name in values}
        for stage, values in (measured[0] if measured else {}).items()
    }
    return _Answer(items, scores, ranking_metrics(items, queries, ks), seconds), joined


def _ask_baseline(
    baseline: Baseline, dataset: Dataset, queries: Queries, ks: Sequence[int], exclude_seen: bool
) -> _Answer:
    begin = time.perf_counter()
    items, scores = baseline.recommend(dataset.events, queries, DEPTH, exclude_seen)
    seconds = time.perf_counter() - begin
    return _Answer(items, scores, ranking_metrics(items, queries, ks), seconds)


def _summary(
    answer: _Answer,
    dataset: Dataset,
    queries: Queries,
    counts: LongArray,
    vectors: FloatArray | None,
) -> dict[str, float | None]:
    """Average the accuracy metrics and add what goes beyond accuracy."""
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


def _slice_summary(
    dataset: Dataset, split: Split, queries: Queries, answers: Mapping[str, _Answer], counts: LongArray
) -> dict[str, Any]:
    slices: dict[str, Any] = {}
    for part in make_slices(dataset, split, queries, counts):
        slices[part.name] = {
            "about": part.about,
            "queries": len(part.queries),
            "targets": len(part.queries.targets),
            "systems": {
                name: means(ranked_values(answer.items[part.index], part.queries))
                for name, answer in answers.items()
            },
        }
    return slices


def _confidence(answers: Mapping[str, _Answer], resamples: int, seed: int) -> dict[str, Any]:
    """Return `{system: {metric: [low, high]}}` from one set of resamples."""
    columns = [(system, metric) for system, a in answers.items() for metric in a.values]
    values = np.stack([answers[system].values[metric] for system, metric in columns], axis=1)
    low, high = bootstrap_intervals(values, resamples, seed, LEVEL)
    confidence: dict[str, Any] = {system: {} for system in answers}
    for (system, metric), a, b in zip(columns, low, high, strict=True):
        confidence[system][metric] = [float(a), float(b)]
    return confidence


def _significance(answers: Mapping[str, _Answer], name: str, resamples: int, seed: int) -> dict[str, Any]:
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


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat().replace("+00:00", "Z")


def _protocol(
    dataset: Dataset,
    split: Split,
    config: EvaluationConfig,
    windows: Mapping[str, Queries],
    baselines: Sequence[Baseline],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Everything that defines the numbers."""
    cuts = None
    if split.kind is SplitKind.global_time:
        cuts = {
            "ranker_start": _iso(split.tower_time),
            "valid_start": _iso(split.train_time),
            "test_start": _iso(split.state_time),
        }
    kinds = config.target_events or [
        kind for kind, weight in zip(dataset.kinds, dataset.kind_weights, strict=True) if weight > 0
    ]
    return {
        "format_version": FORMAT_VERSION,
        "split": split.kind.value,
        "cut_times": cuts,
        "candidates": "whole catalogue",
        **settings,
        "list_depth": DEPTH,
        "queries": {window: len(queries) for window, queries in windows.items()},
        "targets": {window: len(queries.targets) for window, queries in windows.items()},
        "max_users": config.max_users,
        "items": len(dataset.catalogue),
        "users": dataset.events.users,
        "events": len(dataset.events),
        "target_events": list(kinds),
        "dataset_hash": dataset.info.get("content_hash"),
        "confidence_level": LEVEL,
        "bootstrap": config.bootstrap,
        "baselines": {baseline.name: baseline.describe() for baseline in baselines},
    }


def _plain(value: object) -> object:
    """Turn NaN and infinities into null, all the way down."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _cut_offs(config: EvaluationConfig) -> list[int]:
    wrong = [k for k in config.ks if not 1 <= k <= DEPTH]
    if wrong:
        raise InputError(f"evaluation.ks: {wrong[0]} is outside 1..{DEPTH}, the depth of the measured lists")
    return sorted({*config.ks, HEADLINE})


def evaluate_lists(
    systems: Mapping[str, System],
    dataset: Dataset,
    split: Split,
    config: EvaluationConfig,
    *,
    exclude_seen: bool,
    vectors: FloatArray | None,
    seed: int,
    code_version: str,
    name: str = "shelfwise",
    console: Console | None = None,
) -> Evaluation:
    """Measure a system and its baselines on the validation and test queries.

    Args:
        systems: the system as of the start of the `valid` and of the `test` window, whose statistics differ.
            Each answers a block of queries with the final lists and what each stage brought; it must respect
            `exclude_seen` itself and look at nothing from `queries.end` on.
        dataset: the dataset.
        split: the protocol.
        config: cut-offs, baselines, bootstrap samples, sampling of queries.
        exclude_seen: whether lists leave out the user's own history.
        vectors: [items, dim] unit text vectors of the encoder before any training, for `frozen_text` and for
            diversity; None leaves diversity null.
        seed: of query sampling, bootstrap, permutations and baselines.
        code_version: written into the protocol.
        name: of the system in the result.
        console: shows what is being measured.

    Raises:
        InputError: a cut-off or baseline that does not exist, or nothing to test on.
    """
    started = time.perf_counter()
    console = console or Console(quiet=True)
    ks = _cut_offs(config)
    if config.bootstrap < 1:
        raise InputError("evaluation.bootstrap must be 1 or more")
    baselines = make_baselines(config.baselines, BaselineInputs(dataset.kind_weights, vectors, seed))
    windows = {w: sample_queries(getattr(split, w), config.max_users, seed) for w in WINDOWS}
    if len(windows["test"]) == 0:
        raise InputError(
            "evaluate: the test window holds no relevant event; check split and evaluation.target_events"
        )
    n_items = len(dataset.catalogue)
    trained = dataset.events.item[prefix_positions(dataset.events, split.train_end)]
    counts = np.bincount(trained, minlength=n_items).astype(np.int64)

    answers: dict[str, dict[str, _Answer]] = {w: {} for w in WINDOWS}
    stages: dict[str, Any] = {}
    timing: dict[str, Any] = {}
    for window, queries in windows.items():
        with console.status(f"asking {name} {len(queries):,} {window} queries"):
            answers[window][name], found = _ask_system(systems[window], queries, ks)
        stages[window] = stage_summary(found)
    timing[name] = _timing(answers, windows, name)
    for baseline in baselines:
        fitting = 0.0
        fitted: tuple[LongArray, int] | None = None
        for window, queries in windows.items():
            with console.status(f"asking {baseline.name} {len(queries):,} {window} queries"):
                end, now = fit_ends(split, window)
                if fitted is None or now != fitted[1] or not np.array_equal(end, fitted[0]):
                    begin = time.perf_counter()
                    baseline.fit(dataset.events, end, now, n_items)
                    fitting += time.perf_counter() - begin
                    fitted = end, now
                answers[window][baseline.name] = _ask_baseline(baseline, dataset, queries, ks, exclude_seen)
        timing[baseline.name] = {"fit_seconds": fitting, **_timing(answers, windows, baseline.name)}
    with console.status("computing intervals, tests and slices"):
        summaries = {
            window: {
                system: _summary(answer, dataset, windows[window], counts, vectors)
                for system, answer in answers[window].items()
            }
            for window in WINDOWS
        }
        test = answers["test"]
        settings = {
            "system": name,
            "exclude_seen": exclude_seen,
            "ks": ks,
            "seed": seed,
            "code_version": code_version,
        }
        result = {
            "protocol": _protocol(dataset, split, config, windows, baselines, settings),
            "test": summaries["test"],
            "valid": summaries["valid"],
            "slices": _slice_summary(dataset, split, windows["test"], test, counts),
            "stages": stages,
            "confidence": {"test": _confidence(test, config.bootstrap, seed)},
            "significance": {"test": _significance(test, name, config.bootstrap, seed)},
            "timing": timing,
        }
    timing["total_seconds"] = time.perf_counter() - started
    plain = {key: _plain(value) for key, value in result.items()}
    return Evaluation(plain, windows["test"], test[name].items, test[name].scores)


def _timing(
    answers: Mapping[str, Mapping[str, _Answer]], windows: Mapping[str, Queries], name: str
) -> dict[str, float]:
    """Seconds per window, and queries a second on test."""
    seconds = {window: answers[window][name].seconds for window in windows}
    rate = len(windows["test"]) / max(seconds["test"], 1e-9)
    return {
        "valid_seconds": seconds["valid"],
        "test_seconds": seconds["test"],
        "test_queries_per_second": rate,
    }
