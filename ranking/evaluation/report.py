"""Files of an evaluation, and a table on the terminal; the page is in `page/`."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table
from rich.text import Text

from features.data.dataset import Dataset
from features.files.modes import make_private
from ranking.evaluation.evaluation import Evaluation
from ranking.evaluation.losses import loss_line
from ranking.evaluation.page.material import gather
from ranking.evaluation.page.render import best_of, render_report
from ranking.evaluation.page.shortcuts import number
from ranking.evaluation.page.summary import measured, stars
from ranking.evaluation.query_table import LISTS_FILE, QUERIES_FILE, write_lists, write_queries

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.parquet"
REPORT_FILE = "report.html"
TABLE_METRICS = ("recall@10", "ndcg@10", "hit@10", "mrr", "coverage@10")


def predictions_frame(evaluation: Evaluation, dataset: Dataset) -> pl.DataFrame:
    """Return the lists as rows: user_id, rank (from 1), item_id, score."""
    row, rank = np.nonzero(evaluation.items >= 0)
    users = dataset.user_series
    ids = pl.Series(dataset.catalogue.ids, dtype=pl.String)
    return pl.DataFrame(
        {
            "user_id": users.gather(evaluation.queries.user[row]),
            "rank": (rank + 1).astype(np.int32),
            "item_id": ids.gather(evaluation.items[row, rank]),
            "score": evaluation.scores[row, rank],
        }
    )


def write_evaluation(folder: Path, evaluation: Evaluation, dataset: Dataset) -> Path:
    """Write metrics.json, predictions.parquet, queries.parquet, lists.parquet and report.html.

    Each file is replaced atomically: all are written beside the folder, then moved, metrics.json last.

    Args:
        folder: created if missing; beside it, in the work directory, are the learning curves for the report.
        evaluation: result of `evaluate_lists`.
        dataset: for the user and item ids of the predictions.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        predictions_frame(evaluation, dataset).write_parquet(staging / PREDICTIONS_FILE)
        system, seed = evaluation.result["protocol"]["system"], evaluation.result["protocol"]["seed"]
        shown = evaluation.queries, evaluation.answers
        write_queries(staging / QUERIES_FILE, dataset, evaluation.slices, *shown, system)
        write_lists(staging / LISTS_FILE, dataset, *shown, seed)
        material = gather(staging, evaluation.result, dataset, folder.parent)
        (staging / REPORT_FILE).write_text(render_report(evaluation.result, material), encoding="utf-8")
        text = json.dumps(evaluation.result, indent=2, allow_nan=False, ensure_ascii=False)
        (staging / METRICS_FILE).write_text(text + "\n", encoding="utf-8")
        for name in (PREDICTIONS_FILE, QUERIES_FILE, LISTS_FILE):  # with user ids
            make_private(staging / name)
        for name in (PREDICTIONS_FILE, QUERIES_FILE, LISTS_FILE, REPORT_FILE, METRICS_FILE):
            os.replace(staging / name, folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def print_table(result: Mapping[str, Any], console: Console) -> None:
    """Print the metrics: the best of each column bold, significant differences marked; then cold items.

    Args:
        result: of `evaluate_lists`.
        console: where to print.
    """
    protocol, metrics = result["protocol"], measured(result)
    window, system = protocol["measured"], protocol["system"]
    tests = result["significance"][window]
    own = (system, *protocol["parts"])
    seen = "seen items excluded" if protocol["exclude_seen"] else "seen items kept"
    table = Table(
        title=f"{window}, {protocol['split']}, {protocol['queries'][window]:,} queries, "
        f"all {protocol['items']:,} items, {seen}"
    )
    table.add_column("system")
    for metric in TABLE_METRICS:
        table.add_column(metric, justify="right")
    for name, values in metrics.items():
        cells = [Text(name, style="bold" if name == system else "")]
        for metric in TABLE_METRICS:
            tested = tests.get(name, {}).get(metric)
            mark = stars(tested["p_value"]) if tested else ""
            best = values[metric] is not None and values[metric] == best_of(metrics, metric)
            cells.append(Text(f"{number(values[metric])}{mark:<3}", style="bold" if best else ""))
        table.add_row(*cells, end_section=name == own[-1])
    console.print(table)
    if tests:
        console.print(
            f"differs from {system}: * p < .05, ** p < .01, *** p < .001 (paired t test)", style="dim"
        )
    losses = result.get("losses", {}).get(window)
    if losses is not None:
        console.print(loss_line(losses["all"]), highlight=False)
    for part in result["cold_catalogue"][window].values():
        if part["queries"]:
            console.print(_cold_table(part))


def _cold_table(part: Mapping[str, Any]) -> Table:
    """Return a terminal table of one cold catalogue."""
    table = Table(
        title=f"{part['about']}: {part['items']:,}; {part['queries']:,} queries, {part['targets']:,} targets"
    )
    table.add_column("system")
    columns = [(where, m) for where in ("within", "full") for m in ("recall@10", "ndcg@10")]
    for where, metric in columns:
        table.add_column(f"{metric} {'among them' if where == 'within' else 'in all'}", justify="right")
    for name, values in part["systems"].items():
        table.add_row(name, *(number(values[where][metric]) for where, metric in columns))
    return table
