"""`shelfwise evaluate predictions=FILE`: any system's lists, measured as the run itself was."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
from rich.console import Console

from conf.errors import InputError
from conf.schema import EvaluateConfig
from encoders.training.train import try_split
from features.data.dataset import Dataset, load_dataset
from features.data.pipeline_step import write_atomically
from features.files.modes import create_private
from ranking.comparison.command import write_comparison
from ranking.comparison.compare import Settings, compare
from ranking.comparison.measured import Measured, measure
from ranking.comparison.operand import DATASET, EVALUATION, PREDICTIONS_FILE
from ranking.comparison.predictions import Predictions, read_predictions
from ranking.comparison.table import print_comparison
from ranking.comparison.window import (
    METRICS_FILE,
    Window,
    frozen_vectors,
    make_window,
    read_result,
    window_of_result,
)
from ranking.evaluation.evaluation import Evaluation
from ranking.evaluation.list_providers import Answer
from ranking.evaluation.query_table import QUERIES_FILE, write_queries
from ranking.evaluation.report import predictions_frame, print_table
from ranking.evaluation.summaries import LEVEL, TESTED, confidence, plain_values, significance

METRICS: Final = ("recall@10", "ndcg@10", "hit@10", "mrr", "map@10")


def _name(config: EvaluateConfig, result: Mapping[str, Any] | None) -> str:
    """Return the name of the judged system.

    Raises:
        InputError: the run has a system of that name.
    """
    assert config.predictions is not None
    stem = re.sub(r"(\.(csv|tsv|jsonl?|parquet|gz|zst))+$", "", Path(config.predictions).name)
    name = config.system or re.sub(r"[^A-Za-z0-9_-]+", "_", stem)[:64] or "predictions"
    taken = {} if result is None else result[result["protocol"]["measured"]]
    folder = Path(config.work_dir) / EVALUATION / name
    if name in taken or folder.is_file():
        raise InputError(f"the evaluation has a '{name}' already; name the other system: system={name}_2")
    return name


def _window(config: EvaluateConfig, dataset: Dataset, result: Mapping[str, Any] | None) -> Window:
    """Return the window that the run was measured on, else the one of the settings."""
    work = Path(config.work_dir)
    vectors = frozen_vectors(work, len(dataset.catalogue))
    if result is not None:
        return window_of_result(dataset, result, work / EVALUATION, vectors)
    split = try_split(config, dataset)
    if split is None:
        raise InputError(f"{work}: {len(dataset.events):,} events are too few to divide")
    name = "test" if config.evaluation.test else "valid"
    return make_window(dataset, split, config.evaluation, config.seed, name, vectors)


def _run_answers(
    work: Path, result: Mapping[str, Any] | None, window: Window
) -> tuple[Measured | None, dict[str, Answer]]:
    """Return the run's own lists, and what is known per query of each of its systems.

    Baselines are known per query where the evaluation wrote `queries.parquet`.
    """
    lists = work / EVALUATION / PREDICTIONS_FILE
    if result is None or not lists.is_file():
        return None, {}
    name = str(result["protocol"]["system"])
    found = read_predictions(str(lists), window)
    own = measure(name, window, found.items, found.scores, {"kind": "evaluation", "place": str(work)})
    answers = {name: own.answer}
    table = work / EVALUATION / QUERIES_FILE
    if table.is_file():
        values = pl.read_parquet(table)
        users = window.dataset.user_series.gather(window.queries.user)
        values = users.to_frame().join(values, on="user_id", how="left", maintain_order="left")
        for system in result[window.name]:
            columns = {m: f"{system}/{m}" for m in TESTED}
            if system != name and set(columns.values()) <= set(values.columns):
                per_query = {m: values[c].to_numpy().astype(np.float64) for m, c in columns.items()}
                if all(np.isfinite(v).all() for v in per_query.values()):
                    answers[system] = replace(own.answer, values=per_query)
    return own, answers


def judged_result(
    window: Window,
    judged: Measured,
    predictions: Predictions,
    run: Mapping[str, Any] | None,
    answers: Mapping[str, Answer],
    config: EvaluateConfig,
) -> dict[str, Any]:
    """Return the result of a file in the form of metrics.json, beside the systems of the run.

    Args:
        window: the queries.
        judged: the system.
        predictions: as read.
        run: the run's own result, if there is one.
        answers: values per query of its systems, where they are known.
        config: samples and seed, without a run's.
    """
    name = judged.name
    protocol = {
        "split": window.split.kind.value,
        "ks": window.ks,
        "seed": config.seed,
        "bootstrap": config.evaluation.bootstrap,
        "confidence_level": LEVEL,
        "queries": {window.name: len(window.queries)},
        "targets": {window.name: len(window.queries.targets)},
        "items": len(window.dataset.catalogue),
        "dataset_hash": window.dataset.info.get("content_hash"),
        "baselines": {},
        **({} if run is None else run["protocol"]),
        "system": name,
        "parts": [],
        "measured": window.name,
        "exclude_seen": window.exclude_seen,
        "predictions": predictions.facts,
        "notes": predictions.notes,
    }
    seed, resamples = protocol["seed"], protocol["bootstrap"]
    theirs = {} if run is None else run[window.name]
    slices = judged.slices(window)
    for part, row in slices.items():
        if run is not None and part in run["slices"]:
            row["systems"] |= run["slices"][part]["systems"]
    every = {name: judged.answer, **answers}
    found = {
        "protocol": protocol,
        window.name: {name: judged.summary(window), **theirs},
        "slices": slices,
        "cold_catalogue": {window.name: {}},
        "confidence": {
            window.name: {
                **confidence({name: judged.answer}, resamples, seed),
                **({} if run is None else run["confidence"][window.name]),
            }
        },
        "significance": {window.name: significance(every, name, resamples, seed)},
    }
    return {key: plain_values(value) for key, value in found.items()}


def judge(config: EvaluateConfig, console: Console) -> dict[str, Any]:
    """Measure the lists of a file on the run's queries; write metrics and a comparison with the run.

    Returns:
        The result, as in metrics.json.

    Raises:
        InputError: no dataset, or a file that cannot be read as lists.
    """
    assert config.predictions is not None
    work = Path(config.work_dir)
    dataset = load_dataset(work / DATASET)
    run = read_result(work / EVALUATION)
    name = _name(config, run)
    window = _window(config, dataset, run)
    predictions = read_predictions(config.predictions, window)
    judged = measure(
        name, window, predictions.items, predictions.scores,
        {"kind": "file", "place": config.predictions, **predictions.facts}, predictions.others,
    )  # fmt: skip
    own, answers = _run_answers(work, run, window)
    result = judged_result(window, judged, predictions, run, answers, config)
    folder = work / EVALUATION / name
    folder.mkdir(parents=True, exist_ok=True)
    known = np.where(predictions.items < len(dataset.catalogue), predictions.items, -1)
    every = {name: judged.answer}
    lists = Evaluation(result, window.queries, known, predictions.scores, tuple(window.slices), every)
    unfinished = folder / ".unfinished.parquet"
    create_private(unfinished)
    predictions_frame(lists, dataset).write_parquet(unfinished)
    unfinished.replace(folder / PREDICTIONS_FILE)
    create_private(unfinished)
    write_queries(unfinished, dataset, window.slices, window.queries, every, name)
    unfinished.replace(folder / QUERIES_FILE)
    for note in predictions.notes:
        console.print(f"! {note}", style="yellow", soft_wrap=True, highlight=False, markup=False)
    print_table(result, console)
    if own is not None:
        settings = Settings(METRICS, bootstrap=config.evaluation.bootstrap, seed=config.seed)
        compared = compare(window, own, judged, settings, predictions.notes)
        write_comparison(folder, compared)
        print_comparison({**compared, "notes": []}, console)
    text = json.dumps(result, indent=2, allow_nan=False, ensure_ascii=False)
    write_atomically(folder / METRICS_FILE, text + "\n")
    console.print(f"metrics and lists in {folder}", soft_wrap=True, highlight=False)
    return result
