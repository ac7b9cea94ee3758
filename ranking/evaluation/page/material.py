"""What the report shows beside the result: curves, examples, findings, all read from a run's files.

Whatever is missing is left out of the page: an earlier version's evaluation has no stored queries, and a
shop without a linter's run no findings.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from conf.errors import InputError
from encoders.training.curves import Curve, read_curves
from features.data.dataset import Dataset
from ranking.evaluation.metrics import HEADLINE
from ranking.evaluation.page.shoppers import Shopper, Worst, examples, worst
from ranking.evaluation.page.summary import METRIC, best_baseline
from ranking.evaluation.page.text_share import TextShare, text_share
from ranking.evaluation.query_table import LISTS_FILE, QUERIES_FILE, slices_of, systems_of, values_in

FOLDERS: Final = ("encoder", "ranker")
"""Folders of a work directory that have curves."""
LINT_FILE: Final = "lint.json"
Z: Final = 1.96
"""Half the width of a 95 % interval of a normal distribution, in standard errors."""


@dataclass(frozen=True)
class Training:
    """The curve of a training, and what its axis counts."""

    name: str
    curve: Curve
    unit: str
    """`step`, or `epoch` where an earlier version kept one value an epoch."""


@dataclass(frozen=True)
class Material:
    """What the page shows beside the result."""

    trainings: list[Training] = field(default_factory=list)
    shoppers: list[Shopper] = field(default_factory=list)
    worst: list[Worst] = field(default_factory=list)
    text: TextShare | None = None
    differences: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    """Slice -> difference of recall@10 from the strongest baseline, and its 95 % interval."""
    lint: list[dict[str, Any]] = field(default_factory=list)
    """Findings of the data linter, the serious ones first."""


def trainings(work: Path) -> list[Training]:
    """Return the curves of a work directory's trainings, in the order in which they ran."""
    found = [
        Training(name, curve, "step")
        for folder in FOLDERS
        for name, curve in read_curves(work / folder).items()
        if curve.loss or curve.validation
    ]
    return found or _kept_by_epoch(work)


def _kept_by_epoch(work: Path) -> list[Training]:
    """Return the validation metrics by epoch that `training.json` has of every version."""
    reports: dict[str, Any] = {}
    for folder in FOLDERS:
        with suppress(OSError, ValueError):
            reports[folder] = json.loads((work / folder / "training.json").read_text(encoding="utf-8"))
    encoder, ranker = reports.get("encoder", {}), reports.get("ranker", {})
    histories = (
        ("text_encoder", encoder.get("stage_one", {}).get("validation_recall"), METRIC),
        ("towers", encoder.get("stage_two", {}).get("validation_recall"), METRIC),
        ("ranker", ranker.get("history"), f"ndcg@{HEADLINE}"),
    )
    return [
        Training(name, Curve([], list(enumerate(values, start=1)), metric), "epoch")
        for name, values, metric in histories
        if values
    ]


def slice_difference(
    queries: pl.DataFrame, system: str, other: str, part: str = "", metric: str = METRIC
) -> tuple[float, float, float] | None:
    """Return the mean paired difference of two systems in a slice, and its 95 % interval.

    By the normal approximation, which a table of many slices can afford; the main comparison is
    bootstrapped. None for a slice of fewer than two queries.

    Args:
        queries: `queries.parquet`.
        system: the system whose metric is the minuend.
        other: the other one.
        part: the slice; empty for all queries.
        metric: of `ranking_metrics`.

    Raises:
        InputError: an unknown system or slice.
    """
    cutoff = int(metric.partition("@")[2] or HEADLINE)
    own, _ = values_in(queries, system, part, (cutoff,))
    theirs, _ = values_in(queries, other, part, (cutoff,))
    gaps = own[metric] - theirs[metric]
    if len(gaps) < 2:
        return None
    mean, error = float(gaps.mean()), float(gaps.std(ddof=1) / np.sqrt(len(gaps)))
    return mean, mean - Z * error, mean + Z * error


def read_lint(path: Path) -> list[dict[str, Any]]:
    """Return the findings in lint.json, the serious ones first; none where there is no such file."""
    try:
        found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["findings"]
    except (OSError, ValueError, KeyError):
        return []
    order = {"serious": 0, "warning": 1, "note": 2}
    return sorted(found, key=lambda finding: order.get(finding["severity"], len(order)))


def gather(folder: Path, result: Mapping[str, Any], dataset: Dataset, work: Path | None) -> Material:
    """Return the material of a report.

    Args:
        folder: with `queries.parquet` and `lists.parquet`.
        result: of the evaluation.
        dataset: for titles and histories.
        work: work directory of the run, for curves and findings; None leaves them out.
    """
    protocol = result["protocol"]
    system, rival = protocol["system"], best_baseline(result)
    shown: dict[str, Any] = {}
    if work is not None:
        shown = {"trainings": trainings(work), "lint": read_lint(work / "evaluation" / LINT_FILE)}
    with suppress(InputError, FileNotFoundError):
        queries = pl.read_parquet(folder / QUERIES_FILE)
        if system not in systems_of(queries):
            return Material(**shown)
        lists = pl.read_parquet(folder / LISTS_FILE)
        shown |= {
            "shoppers": examples(queries, lists, dataset, system, protocol["seed"]),
            "worst": worst(queries, dataset, system, rival),
            "text": text_share(queries, system),
        }
        if rival is not None:
            gaps = {part: slice_difference(queries, system, rival, part) for part in slices_of(queries)}
            shown["differences"] = {part: gap for part, gap in gaps.items() if gap is not None}
    return Material(**shown)
