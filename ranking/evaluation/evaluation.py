"""The offline evaluation: one protocol and one code path for the system and its baselines.

`evaluate_lists` runs the system and the baselines on the same validation and test queries over the whole
catalogue and returns plain numbers; ranking/evaluation/report.py writes and shows them. See
docs/evaluation.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import torch
from rich.console import Console

from conf.errors import InputError
from conf.schema import EvaluationConfig, Refit, SplitKind
from encoders.device import CPU
from encoders.towers.towers import Towers
from features.data.dataset import Dataset, FloatArray, IntArray, LongArray
from features.data.prefixes import item_counts
from features.data.splits import Queries, Split
from ranking.baselines.registry import Baseline, BaselineInputs, fit_ends, make_baselines
from ranking.evaluation.cold_items import ColdPart, cold_parts, cold_summary
from ranking.evaluation.diagnostics.exposure import Exposure
from ranking.evaluation.diagnostics.shortcuts import shortcuts
from ranking.evaluation.diagnostics.stability import AfterEvent, stability_summary
from ranking.evaluation.list_providers import DEPTH, Answer, ListProvider, baseline_lister, system_lister
from ranking.evaluation.losses import loss_summary
from ranking.evaluation.metrics import HEADLINE
from ranking.evaluation.slices import Slice, make_slices
from ranking.evaluation.stage_recall import System, stage_summary
from ranking.evaluation.stage_recall import SystemLists as SystemLists
from ranking.evaluation.summaries import LEVEL as LEVEL
from ranking.evaluation.summaries import (
    calibration,
    confidence,
    plain_values,
    significance,
    slice_summary,
    system_summary,
)

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Evaluation:
    """A result, and the lists behind its main part."""

    result: dict[str, Any]
    """Plain JSON values; see docs/evaluation.md."""
    queries: Queries
    """Test queries, or validation queries where `evaluation.test` is off."""
    items: IntArray  # [queries, 100]
    scores: FloatArray  # [queries, 100]
    slices: tuple[Slice, ...]
    """Of these queries."""
    answers: Mapping[str, Answer]
    """Every system's lists for these queries, by name."""


@dataclass(frozen=True)
class WindowSystems:
    """The systems that are measured in one window, as of its start.

    They must use no event from `queries.end` on.
    """

    whole: System
    """Returns the final lists and the candidates of each stage for a block of queries."""
    parts: Mapping[str, System] = field(default_factory=dict)
    """Parts of the system by name, reported beside it; the same in every window."""
    after_event: AfterEvent | None = None
    """Makes the system's lists after one more event; None leaves their stability null."""


@dataclass(frozen=True)
class _Window:
    """The queries of one window and the lists that every system returns for them."""

    name: str
    queries: Queries
    cold: list[ColdPart]
    answers: dict[str, Answer] = field(default_factory=dict)

    def run(self, name: str, lister: ListProvider) -> None:
        """Collect a system's lists from the whole catalogue, then those of cold items alone."""
        self.answers[name] = lister(self.queries, None)
        for part in self.cold:
            part.run(name, lister)


def sample_queries(queries: Queries, most: int, seed: int) -> Queries:
    """Return `most` queries drawn without replacement, in order; all for 0 or a larger number."""
    if not 0 < most < len(queries):
        return queries
    drawn = np.random.default_rng(seed).choice(len(queries), size=most, replace=False)
    return queries.select(np.sort(drawn))


def _iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat().replace("+00:00", "Z")


def _protocol(
    dataset: Dataset,
    split: Split,
    config: EvaluationConfig,
    windows: Sequence[_Window],
    baselines: Sequence[Baseline],
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Return the settings that define the numbers."""
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
        "queries": {window.name: len(window.queries) for window in windows},
        "targets": {window.name: len(window.queries.targets) for window in windows},
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


def _cutoffs(config: EvaluationConfig) -> list[int]:
    wrong = [k for k in config.ks if not 1 <= k <= DEPTH]
    if wrong:
        raise InputError(f"evaluation.ks: {wrong[0]} is outside 1..{DEPTH}, the depth of the measured lists")
    return sorted({*config.ks, HEADLINE})


def _windows(dataset: Dataset, split: Split, config: EvaluationConfig, seed: int) -> list[_Window]:
    """Return the windows to measure, the main one last; test only with `config.test`."""
    windows = []
    for name in ("valid", "test") if config.test else ("valid",):
        queries = sample_queries(getattr(split, name), config.max_users, seed)
        cold = cold_parts(dataset, queries, split.train_end, fit_ends(split, name)[0])
        windows.append(_Window(name, queries, cold))
    if len(windows[-1].queries) == 0:
        raise InputError(
            f"evaluate: the {windows[-1].name} window holds no relevant event; "
            "check split and evaluation.target_events"
        )
    return windows


def _run_baseline(
    baseline: Baseline,
    windows: Sequence[_Window],
    dataset: Dataset,
    split: Split,
    ks: Sequence[int],
    exclude_seen: bool,
) -> float:
    """Fit a baseline per window, once for windows of equal training events; return the seconds of fitting."""
    fitting = 0.0
    fitted: tuple[LongArray, int] | None = None
    for window in windows:
        end, now = fit_ends(split, window.name)
        if fitted is None or now != fitted[1] or not np.array_equal(end, fitted[0]):
            begin = time.perf_counter()
            baseline.fit(dataset.events, end, now, len(dataset.catalogue))
            fitting += time.perf_counter() - begin
            fitted = end, now
        window.run(baseline.name, baseline_lister(baseline, dataset, ks, exclude_seen))
    return fitting


def evaluate_lists(
    systems: Mapping[str, Callable[[], WindowSystems]],
    dataset: Dataset,
    split: Split,
    config: EvaluationConfig,
    *,
    exclude_seen: bool,
    vectors: FloatArray | None,
    seed: int,
    code_version: str,
    name: str = "shelfwise",
    train_ids: Callable[[LongArray], Towers] | None = None,
    refit: str = Refit.never.value,
    console: Console | None = None,
    device: torch.device = CPU,
) -> Evaluation:
    """Measure a system, parts of it and baselines on the validation and test queries.

    Args:
        systems: by window (`valid`, `test`), what makes the system, which must apply `exclude_seen` itself.
            It is called once, the measured window first, and its result is dropped before the next one is
            made: two models need twice the memory. Without `config.test`, `test` is ignored.
        dataset: the dataset.
        split: the protocol.
        config: cutoffs, baselines, bootstrap samples, sampling of queries.
        exclude_seen: whether lists leave out the user's own history.
        vectors: [items, dim] unit text vectors of the encoder before any training, for `frozen_text` and for
            diversity; None leaves diversity null.
        seed: of query sampling, bootstrap, permutations and baselines.
        code_version: written into the protocol.
        name: of the system in the result.
        train_ids: trains towers without text on events up to [users], for the baseline `sasrec_ids`.
        refit: which events after training the test models were trained on; written into the protocol.
        console: shows progress.
        device: where baselines compute dense products.

    Raises:
        InputError: an invalid cutoff, an unknown baseline, or no queries.
    """
    started = time.perf_counter()
    console = console or Console(quiet=True)
    ks = _cutoffs(config)
    if config.bootstrap < 1:
        raise InputError("evaluation.bootstrap must be 1 or more")
    inputs = BaselineInputs(dataset.kind_weights, vectors, seed, train_ids, device)
    baselines = make_baselines(config.baselines, inputs)
    windows = _windows(dataset, split, config, seed)
    main = windows[-1]
    n_items = len(dataset.catalogue)
    counts = item_counts(dataset.events, split.train_end, n_items)

    stability = None
    for window in reversed(windows):
        made = systems[window.name]()
        for system, lists in {name: made.whole, **made.parts}.items():
            with console.status(f"running {system} on {len(window.queries):,} {window.name} queries"):
                window.run(system, system_lister(lists, ks))
        if window is main and made.after_event is not None:
            found = main.answers[name].items
            stability = stability_summary(
                main.queries, found, made.after_event, config.bootstrap, seed, LEVEL
            )
        del made, lists
    parts = list(main.answers)[1:]
    timing: dict[str, Any] = {system: _timing(windows, system) for system in main.answers}
    for baseline in baselines:
        with console.status(f"running {baseline.name}"):
            fitting = _run_baseline(baseline, windows, dataset, split, ks, exclude_seen)
        timing[baseline.name] = {"fit_seconds": fitting, **_timing(windows, baseline.name)}
    with console.status("computing intervals, tests and slices"):
        slices = tuple(make_slices(dataset, split, main.queries, counts))
        known_end = {window.name: fit_ends(split, window.name)[0] for window in windows}
        exposures = {
            window.name: Exposure.of(dataset, window.queries, counts, known_end[window.name])
            for window in windows
        }
        settings = {
            "system": name,
            "parts": parts,
            "measured": main.name,
            "exclude_seen": exclude_seen,
            "ks": ks,
            "seed": seed,
            "code_version": code_version,
            "refit": refit,
        }
        result = {
            "protocol": _protocol(dataset, split, config, windows, baselines, settings),
            **{
                window.name: {
                    system: system_summary(
                        answer, dataset, window.queries, counts, vectors, exposures[window.name]
                    )
                    for system, answer in window.answers.items()
                }
                for window in reversed(windows)
            },
            "slices": slice_summary(slices, main.answers),
            "cold_catalogue": {
                window.name: {
                    part.name: cold_summary(
                        part, window.answers, dataset.events, exclude_seen, config.bootstrap, seed, LEVEL
                    )
                    for part in window.cold
                }
                for window in windows
            },
            "stages": {window.name: stage_summary(window.answers[name].stages) for window in windows},
            "losses": {
                window.name: loss_summary(
                    window.answers[name].paths,
                    window.queries,
                    {part.name: part.targets for part in slices} if window is main else {},
                )
                for window in windows
            },
            "calibration": {
                window.name: calibration(
                    dataset, window.queries, window.answers[name], config.bootstrap, seed
                )
                for window in windows
            },
            "stability": {main.name: stability},
            "shortcuts": {main.name: shortcuts(dataset, main.queries, known_end[main.name], vectors, seed)},
            "confidence": {main.name: confidence(main.answers, config.bootstrap, seed)},
            "significance": {main.name: significance(main.answers, name, config.bootstrap, seed)},
            "timing": timing,
        }
    timing["total_seconds"] = time.perf_counter() - started
    plain = {key: plain_values(value) for key, value in result.items()}
    own = main.answers[name]
    return Evaluation(plain, main.queries, own.items, own.scores, slices, main.answers)


def _timing(windows: Sequence[_Window], name: str) -> dict[str, float]:
    """Seconds per window, and queries a second on the main one."""
    seconds = {f"{window.name}_seconds": window.answers[name].seconds for window in windows}
    main = windows[-1]
    rate = len(main.queries) / max(main.answers[name].seconds, 1e-9)
    return {**seconds, f"{main.name}_queries_per_second": rate}
