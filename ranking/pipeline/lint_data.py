"""`lint-data`: look for leaks in the data that `run` would read, and measure what each is worth."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console

from conf.errors import InputError
from conf.schema import Adapter, FailOn, LintConfig, PipelineConfig, Severity
from encoders.training.train import try_split
from features.data import schema
from features.data.dataset import Dataset, load_dataset
from features.prepare import DATASET_FOLDER
from ranking.lint.findings import worst
from ranking.lint.linter import as_result, lint, quick_lint
from ranking.lint.material import material_of
from ranking.lint.report import show, warn, write
from ranking.lint.worth import Yardstick
from ranking.pipeline.prepared import prepared

EVALUATION_FOLDER = "evaluation"
FOUND = 3
"""Exit code where a finding is as serious as `fail_on`."""


def lint_data(config: LintConfig, console: Console) -> None:
    """Print what was found, write lint.json and lint.html, and exit with 3 for findings as of `fail_on`.

    Without the paths of raw tables the dataset that `work_dir` holds is checked; with them it is prepared
    first, unless the same files were prepared there with the same settings.

    Raises:
        InputError: no data, or too few events to divide.
    """
    started = time.perf_counter()
    folder = Path(config.work_dir) / DATASET_FOLDER
    named = config.data.items or config.data.events or config.data.adapter is Adapter.completejourney
    there = (folder / schema.DATASET_FILE).is_file()
    dataset = load_dataset(folder) if there and not named else prepared(config, console)
    split = try_split(config, dataset)
    if split is None:
        raise InputError(
            f"{folder}: {len(dataset.events):,} events are too few to divide; there is nothing to check"
        )
    material = material_of(dataset, split, config, folder)
    yardstick = None
    if config.measure and len(split.test):
        yardstick = Yardstick(material, config.lint_queries, config.seed, config.evaluation.bootstrap)
    with console.status("checking"):
        findings = lint(material, yardstick)
    result = as_result(findings, material, yardstick)
    show(findings, result, console)
    if len(material.events) < len(dataset.events):
        console.print(
            f"checked: {len(material.events):,} of {len(dataset.events):,} events, those of drawn users",
            highlight=False,
        )
    page = write(Path(config.work_dir) / EVALUATION_FOLDER, findings, result)
    console.print(f"\n{page} and lint.json beside it; {time.perf_counter() - started:.0f} s", soft_wrap=True)
    least = {FailOn.serious: Severity.serious, FailOn.warning: Severity.warning}.get(config.fail_on)
    highest = worst(findings)
    if least is not None and highest is not None and highest >= least:
        sys.exit(FOUND)


def warn_of_leaks(config: PipelineConfig, dataset: Dataset, console: Console) -> None:
    """Print the serious findings of the quick checks in a line each; nothing where there are none."""
    split = try_split(config, dataset)
    if split is not None:
        folder = Path(config.work_dir) / DATASET_FOLDER
        warn(quick_lint(material_of(dataset, split, config, folder)), console)
