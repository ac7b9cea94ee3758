"""Reports of an evaluation: metrics.json, predictions.parquet, report.html and a table on the terminal."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from rich.console import Console
from rich.table import Table
from rich.text import Text

from features.data.dataset import Dataset
from ranking.evaluation import charts
from ranking.evaluation.evaluation import LEVEL, Evaluation
from ranking.evaluation.query_table import LISTS_FILE, QUERIES_FILE, write_lists, write_queries

METRICS_FILE = "metrics.json"
PREDICTIONS_FILE = "predictions.parquet"
REPORT_FILE = "report.html"
HEADLINE_METRIC = "recall@10"
TABLE_METRICS = ("recall@10", "ndcg@10", "hit@10", "mrr", "coverage@10")
SLICE_METRIC = "recall@10"
EXPLANATIONS = {
    "recall": "share of what the user chose next that is in the first k",
    "ndcg": "the same, counting more when it stands higher",
    "hit": "share of users with at least one right item in the first k",
    "mrr": "1 / rank of the first right item",
    "map": "precision averaged over the right items' ranks",
    "coverage": "share of the catalogue that appears in any list",
    "novelty": "bits of surprise per item; popular items bring few",
    "diversity": "1 - mean text likeness within a list",
    "popularity_lift": "popularity of the list / of the user's own past choices",
}


def predictions_frame(evaluation: Evaluation, dataset: Dataset) -> pl.DataFrame:
    """Return the lists as rows: user_id, rank (from 1), item_id, score."""
    row, rank = np.nonzero(evaluation.items >= 0)
    users = pl.Series(dataset.user_ids, dtype=pl.String)
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
        folder: created if missing.
        evaluation: result of `evaluate_lists`.
        dataset: for the user and item ids of the predictions.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        predictions_frame(evaluation, dataset).write_parquet(staging / PREDICTIONS_FILE)
        (staging / REPORT_FILE).write_text(render_report(evaluation.result), encoding="utf-8")
        system, seed = evaluation.result["protocol"]["system"], evaluation.result["protocol"]["seed"]
        shown = evaluation.queries, evaluation.answers
        write_queries(staging / QUERIES_FILE, dataset, evaluation.slices, *shown, system)
        write_lists(staging / LISTS_FILE, dataset, *shown, seed)
        text = json.dumps(evaluation.result, indent=2, allow_nan=False, ensure_ascii=False)
        (staging / METRICS_FILE).write_text(text + "\n", encoding="utf-8")
        for name in (PREDICTIONS_FILE, QUERIES_FILE, LISTS_FILE, REPORT_FILE, METRICS_FILE):
            os.replace(staging / name, folder / name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def measured(result: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return each system's metrics in the main window: test, or validation where test was not evaluated."""
    metrics: dict[str, dict[str, Any]] = result[result["protocol"]["measured"]]
    return metrics


def best_baseline(result: Mapping[str, Any], metric: str = HEADLINE_METRIC) -> str | None:
    """Return the baseline with the highest metric; None without baselines."""
    protocol = result["protocol"]
    own = (protocol["system"], *protocol["parts"])
    rivals = {name: values[metric] or 0.0 for name, values in measured(result).items() if name not in own}
    return max(rivals, key=lambda name: rivals[name]) if rivals else None


def stars(p_value: float | None) -> str:
    """Return the stars of a p-value: *** below .001, ** below .01, * below .05, else none."""
    if p_value is None:
        return ""
    return "***" if p_value < 0.001 else "**" if p_value < 0.01 else "*" if p_value < 0.05 else ""


def headline(result: Mapping[str, Any]) -> str:
    """Return one or two sentences that compare the system with its strongest baseline."""
    system, rival = result["protocol"]["system"], best_baseline(result)
    metrics = measured(result)
    own = metrics[system][HEADLINE_METRIC]
    found = f"{system} puts {own:.1%} of what users chose next into the first 10 of {_items(result)} items."
    if rival is None:
        return found
    theirs = metrics[rival][HEADLINE_METRIC]
    test = result["significance"][result["protocol"]["measured"]][rival][HEADLINE_METRIC]
    if test["p_value"] is None or test["p_value"] >= 1 - LEVEL:
        return f"{found} That is not distinguishable from the strongest baseline, {rival} ({theirs:.1%})."
    relation = "more" if own > theirs else "less"
    size = f"{abs(own / theirs - 1):.0%} {relation} than" if theirs else "against nothing for"
    chance = "p < .001" if test["p_value"] < 0.001 else f"p = {test['p_value']:.3f}"
    return f"{found} That is {size} the strongest baseline, {rival} ({theirs:.1%}; {chance})."


def _items(result: Mapping[str, Any]) -> str:
    return f"{result['protocol']['items']:,}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _best(metrics: Mapping[str, Mapping[str, float | None]], metric: str) -> float | None:
    known = [value for values in metrics.values() if (value := values[metric]) is not None]
    return max(known, default=None)


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
        f"all {_items(result)} items, {seen}"
    )
    table.add_column("system")
    for metric in TABLE_METRICS:
        table.add_column(metric, justify="right")
    for name, values in metrics.items():
        cells = [Text(name, style="bold" if name == system else "")]
        for metric in TABLE_METRICS:
            tested = tests.get(name, {}).get(metric)
            mark = stars(tested["p_value"]) if tested else ""
            best = values[metric] is not None and values[metric] == _best(metrics, metric)
            cells.append(Text(f"{_number(values[metric])}{mark:<3}", style="bold" if best else ""))
        table.add_row(*cells, end_section=name == own[-1])
    console.print(table)
    if tests:
        console.print(
            f"differs from {system}: * p < .05, ** p < .01, *** p < .001 (paired t test)", style="dim"
        )
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
        table.add_row(name, *(_number(values[where][metric]) for where, metric in columns))
    return table


def _slices_table(result: Mapping[str, Any], systems: list[str]) -> list[dict[str, Any]]:
    """Return the report's slice rows, empty slices left out."""
    rows = []
    for name, part in result["slices"].items():
        if not part["queries"]:
            continue
        values = {system: part["systems"][system][SLICE_METRIC] for system in systems}
        best = max((v for v in values.values() if v is not None), default=None)
        rows.append({**part, "name": name.replace("_", " "), "values": values, "best": best})
    return rows


def render_report(result: Mapping[str, Any]) -> str:
    """Return the report as one self-contained HTML page.

    Args:
        result: of `evaluate_lists`, or read back from metrics.json.
    """
    protocol, metrics = result["protocol"], measured(result)
    window = protocol["measured"]
    system, ks, rival = protocol["system"], protocol["ks"], best_baseline(result)
    plots: dict[str, Callable[[], str]] = {
        "systems": lambda: charts.interval_bars(
            metrics, result["confidence"][window], HEADLINE_METRIC, system
        ),
        "curve": lambda: charts.recall_curve(metrics, ks, system),
        "stages": lambda: charts.stage_funnel(result["stages"][window], metrics[system], ks),
        "slices": lambda: charts.slice_bars(result["slices"], SLICE_METRIC, system, rival),
    }
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["number"] = _number
    environment.filters["stars"] = stars
    template = environment.from_string(
        resources.files("ranking.evaluation").joinpath("report.html.jinja").read_text(encoding="utf-8")
    )
    return template.render(
        result=result,
        protocol=protocol,
        metrics=metrics,
        systems=list(metrics),
        confidence=result["confidence"][window],
        significance=result["significance"][window],
        queries=protocol["queries"][window],
        targets=protocol["targets"][window],
        cold=[part for part in result["cold_catalogue"][window].values() if part["queries"]],
        system=system,
        rival=rival,
        headline=headline(result),
        best={name: _best(metrics, name) for name in metrics[system]},
        slices=_slices_table(result, list(metrics)),
        stages=result["stages"][window],
        explanations=EXPLANATIONS,
        plots={name: Markup(draw()) for name, draw in plots.items()},  # noqa: S704 - SVG of our own plots
    )
