"""Ablation: a base run and variations of it, compared on validation; test is not read.

    python -m benchmarks.ablation benchmarks/ablation.yaml --name beauty experiment=best split=leave_one_out \
        data=amazon_reviews data.items=items.parquet data.events=events.parquet

The YAML file maps names to lists of overrides. The base runs first; a variation starts with hard links to the
base's dataset, encoder and ranking head, and repeats only the steps whose settings it changes. Finished runs
are reused. The lists of both are compared query by query with a paired t test and a sign-flip test. Early
stopping uses the same queries, in the base as in every variation: differences are meaningful, levels are not.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import yaml  # type: ignore[import-untyped]
from rich.console import Console
from rich.markdown import Markdown

from benchmarks.runs import Run, finished, merge_overrides, put_section, run_once, shown_command
from conf.composition.compose import compose_command
from conf.errors import InputError
from conf.schema import PipelineConfig
from features.data.dataset import IntArray, load_dataset
from features.data.pipeline_step import write_atomically
from features.data.splits import Queries, make_split
from ranking.evaluation.evaluation import sample_queries
from ranking.evaluation.metrics import ValueArray
from ranking.evaluation.significance import paired_test
from ranking.evaluation.stage_recall import HEADLINE, ranked_values

BASE = "base"
METRICS = ("recall@10", "ndcg@10")
REUSED = ("dataset", "text", "encoder", "ranker")
"""Folders of steps that a variation may reuse; each step checks its inputs itself."""
SETTINGS = ("evaluation.test=false", "evaluation.baselines=[]")


@dataclass(frozen=True)
class Answers:
    """Validation metrics per query of a finished run."""

    question: tuple[Any, ...]
    """Settings that define the queries; only runs with the same queries are compared."""
    values: ValueArray  # [queries, METRICS]


def read_variations(path: Path, only: Sequence[str] = ()) -> dict[str, list[str]]:
    """Read named override sets.

    Args:
        path: YAML file.
        only: names to read; empty reads all.

    Raises:
        InputError: the file is missing, is not a mapping of names to lists of overrides, or lacks a name.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"{path}: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict) or not all(
        isinstance(v, list) and all(isinstance(o, str) for o in v) for v in content.values()
    ):
        raise InputError(f"{path}: write `name: [key=value, ...]`, one line per variation")
    found = {str(name): list(overrides) for name, overrides in content.items()}
    for name in only:
        if name not in found:
            raise InputError(f"{path}: no variation '{name}'; there are: {', '.join(found)}")
    return {name: overrides for name, overrides in found.items() if not only or name in only}


def folder_of(name: str) -> str:
    """Return a folder name for a variation."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "variation"


def adopt(source: Path, target: Path) -> list[str]:
    """Hard-link the base's finished steps into a variation that has not started; return their names.

    These files are never written to: a repeated step removes its folder first.
    """
    adopted = []
    for step in REUSED:
        if (source / step / "stage.json").is_file() and not (target / step).exists():
            fresh = target / f".{step}"
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(source / step, fresh, copy_function=os.link)
            fresh.rename(target / step)
            adopted.append(step)
    return adopted


def answers(work: Path, config: PipelineConfig) -> Answers:
    """Return the metrics of a run's validation lists per query, from its predictions."""
    dataset = load_dataset(work / "dataset")
    split = make_split(dataset, config.split, config.evaluation.target_events)
    queries: Queries = sample_queries(split.valid, config.evaluation.max_users, config.seed)
    lists = pl.read_parquet(work / "evaluation" / "predictions.parquet").filter(pl.col("rank") <= HEADLINE)
    place = {dataset.user_ids[user]: query for query, user in enumerate(queries.user.tolist())}
    row = {item: number for number, item in enumerate(dataset.catalogue.ids)}
    items: IntArray = np.full((len(queries), HEADLINE), -1, dtype=np.int32)
    query = np.array([place[user] for user in lists["user_id"]], dtype=np.int64)
    items[query, lists["rank"].to_numpy() - 1] = [row[item] for item in lists["item_id"]]
    values = ranked_values(items, queries)
    question = (
        dataset.info["content_hash"],
        queries.user.tolist(), queries.end.tolist(), queries.targets.tolist(),
    )  # fmt: skip
    return Answers(question, np.stack([values[m] for m in METRICS], axis=1))


def compare(name: str, run: Run, own: Answers, base: Answers, seed: int) -> dict[str, Any]:
    """Return a variation's line: means, differences from the base and their p-values."""
    protocol = run.metrics["protocol"]
    line: dict[str, Any] = {
        "name": name,
        "overrides": run.overrides,
        "seconds": run.seconds,
        "peak_mib": run.peak_mib,
        "metrics": {m: float(v) for m, v in zip(METRICS, own.values.mean(axis=0), strict=True)},
        "parts": {part: {m: run.metrics["valid"][part][m] for m in METRICS} for part in protocol["parts"]},
        "slices": {
            part: run.metrics["slices"][part]["systems"][protocol["system"]]["recall@10"]
            for part in ("later_day", "cold_items")
            if part in run.metrics["slices"]
        },
        "compared": None,
    }
    if own.question == base.question:
        test = paired_test(own.values, base.values, seed=seed)
        line["compared"] = {
            m: {
                "difference": float(test.difference[i]),
                "low": float(test.low[i]),
                "high": float(test.high[i]),
                "p_value": float(test.p_value[i]),
                "p_permutation": float(test.p_permutation[i]),
            }
            for i, m in enumerate(METRICS)
        }
    return line


def _number(value: float | None, sign: bool = False) -> str:
    if value is None:
        return "–"
    return f"{value:{'+' if sign else ''}.4f}".replace("0.", ".", 1)


def to_markdown(name: str, command: str, lines: Sequence[dict[str, Any]], queries: int) -> str:
    """Return the table: the base first, then each variation with its difference from it."""
    parts = list(dict.fromkeys(part for line in lines for part in line["parts"]))
    slices = list(dict.fromkeys(part for line in lines for part in line["slices"]))
    header = ["variation"]
    for metric in METRICS:
        header += [metric, "difference", "p"]
    header += [f"{p} recall@10" for p in parts] + [f"{s.replace('_', ' ')} recall@10" for s in slices]
    table = [f"| {' | '.join([*header, 'seconds'])} |", f"|{' --- |' * (len(header) + 1)}"]
    for line in lines:
        cells = [line["name"]]
        for metric in METRICS:
            compared = line["compared"] and line["compared"][metric]
            cells.append(_number(line["metrics"][metric]))
            if compared and line["name"] != BASE:
                p_value = compared["p_value"]
                cells += [
                    _number(compared["difference"], True),
                    "< .001" if p_value < 1e-3 else f"{p_value:.3f}",
                ]
            else:
                cells += ["", ""]
        cells += [_number(line["parts"].get(part, {}).get("recall@10")) for part in parts]
        cells += [_number(line["slices"].get(part)) for part in slices]
        table.append(f"| {' | '.join([*cells, format(line['seconds'], ',.0f')])} |")
    note = (
        f"{queries:,} validation queries; differences from the base, paired t test. Seconds are of the steps "
        "that a variation had to repeat."
    )
    return "\n".join([f"### {name}", "", "```", command, "```", "", *table, "", note, ""])


def measure(
    variations: Mapping[str, Sequence[str]], overrides: Sequence[str], folder: Path, console: Console
) -> list[dict[str, Any]]:
    """Run the base and every variation, one after another, and compare them.

    Args:
        variations: name -> overrides on top of the base's.
        overrides: of the base.
        folder: holds one work directory per run.
        console: shows progress.
    """
    folders = [folder_of(name) for name in (BASE, *variations)]
    if len(set(folders)) < len(folders):
        raise InputError(f"two variations would share a folder: {sorted(folders)}")
    base_settings = merge_overrides(overrides, SETTINGS)
    lines: list[dict[str, Any]] = []
    base: Answers | None = None
    for name, own in {BASE: [], **variations}.items():
        settings, work = merge_overrides(base_settings, own, SETTINGS[:1]), folder / folder_of(name)
        config: PipelineConfig = compose_command("run", settings)
        if name != BASE and finished(work, settings) is None:
            work.mkdir(parents=True, exist_ok=True)
            adopt(folder / BASE, work)
        run = run_once(settings, work, console)
        found = answers(work, config)
        base = base or found
        lines.append(compare(name, run, found, base, config.seed))
    return lines


def show(benchmark: str, about: str | None, make: Callable[[argparse.Namespace, str, Console], str]) -> None:
    """Run the command line of a benchmark of variations.

    Args:
        benchmark: module in `benchmarks`; its folder under `work`, and the table where no name is given.
        about: description; its first line is shown.
        make: runs the benchmark; takes the arguments, the command as shown and the console, and returns the
            Markdown.
    """
    console, name = Console(), benchmark.replace("_", "-")
    parser = argparse.ArgumentParser(description=(about or "").partition("\n")[0])
    parser.add_argument("variations", type=Path, help="YAML file: name -> list of overrides")
    parser.add_argument("overrides", nargs="*", help="settings of the base run, key=value")
    parser.add_argument("--only", action="append", default=[], help="name of a variation to run; repeat it")
    parser.add_argument("--name", default=name, help="of the folder and the table")
    parser.add_argument("--folder", type=Path, default=Path("work") / name)
    parser.add_argument("--page", type=Path, help="Markdown page that gets the table")
    options = parser.parse_intermixed_args()
    only = [word for name in options.only for word in ("--only", name)]
    command = shown_command(
        benchmark, str(options.variations), "--name", options.name, *only, *options.overrides
    )
    try:
        markdown = make(options, command, console)
    except InputError as error:
        console.print(f"[bold red]benchmarks.{benchmark}:[/bold red] {error}", soft_wrap=True)
        sys.exit(2)
    write_atomically(options.folder / options.name / f"{name}.md", markdown)
    if options.page is not None:
        put_section(options.page, f"{name}-{options.name}", markdown)
    console.print(Markdown(markdown))


def _ablation(options: argparse.Namespace, command: str, console: Console) -> str:
    """Run an ablation; write its numbers and return its table."""
    work = options.folder / options.name
    lines = measure(read_variations(options.variations, options.only), options.overrides, work, console)
    protocol = json.loads((work / BASE / "evaluation" / "metrics.json").read_text())["protocol"]
    write_atomically(work / "ablation.json", json.dumps({"command": command, "runs": lines}, indent=2) + "\n")
    return to_markdown(f"Ablation: {options.name}", command, lines, protocol["queries"]["valid"])


if __name__ == "__main__":
    show("ablation", __doc__, _ablation)
