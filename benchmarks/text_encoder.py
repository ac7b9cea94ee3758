"""Ablation of the text encoder's fine-tuning, on validation, by text vectors alone.

    python -m benchmarks.text_encoder benchmarks/text_encoder.yaml --name beauty data=amazon_reviews \
        data.items=items.parquet data.events=events.parquet text_encoder.max_steps=100

Text vectors alone rank the catalogue: a query is the mean of the newest items, a list the items nearest to
it, so that no other part compensates for a choice. Cold items are also ranked among themselves. Each
variation is compared with the pre-trained encoder, with and without the affinity map trained on its vectors.
Finished variations are reused.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from benchmarks.ablation import BASE, folder_of, read_variations, show
from benchmarks.runs import merge_overrides
from conf.composition.compose import compose_command
from conf.schema import PipelineConfig
from encoders.factors.affinity import AFFINITY_FILE, Affinity
from encoders.training.train import FROZEN_VECTORS, REPORT, TEXT_VECTORS, train_text_encoder
from features.data.dataset import BoolArray, Dataset, FloatArray, load_dataset
from features.data.pipeline_step import Step, write_atomically
from features.data.splits import Queries, Split, exclude_seen, make_split
from features.prepare import prepare
from ranking.baselines.items import FrozenText
from ranking.evaluation.cold_items import cold_parts
from ranking.evaluation.stage_recall import HEADLINE, ranked_values

RESULT = "result.json"
UNTRAINED = "the encoder as it comes"
COLUMNS = ("all", "cold", "affinity all", "affinity cold")


def recalls(
    dataset: Dataset, split: Split, config: PipelineConfig, vectors: FloatArray
) -> tuple[float, float | None]:
    """Return recall@10 in the catalogue and, for items without a training event, among themselves.

    Args:
        dataset: the data.
        split: its split; validation queries are used.
        config: settings of the run.
        vectors: text vectors, [items, dim].
    """
    nearest = FrozenText(vectors, kind_weights=dataset.kind_weights)
    nearest.fit(dataset.events, split.train_end, split.train_time, len(dataset.catalogue))
    seen = exclude_seen(dataset, split, config.evaluation.exclude_seen)

    def recall(queries: Queries, allowed: BoolArray | None) -> float:
        lists, _ = nearest.recommend(dataset.events, queries, HEADLINE, seen, allowed)
        return float(ranked_values(lists, queries)[f"recall@{HEADLINE}"].mean())

    cold = cold_parts(dataset, split.valid, split.train_end, split.train_end)[0]
    among = recall(cold.queries, cold.allowed) if len(cold.queries) else None
    return recall(split.valid, None), among


def line_of(
    name: str, dataset: Dataset, split: Split, config: PipelineConfig, stage: Step, file: str
) -> dict[str, Any]:
    """Return the metrics of text vectors, and of the affinity map trained on them, if any."""
    vectors = np.load(stage.folder / file)
    values: list[float | None] = [*recalls(dataset, split, config, vectors)]
    affinity = Affinity.load(stage.folder / AFFINITY_FILE)
    if affinity is not None and file == TEXT_VECTORS:
        values += recalls(dataset, split, config, affinity.units(vectors))
    return {"name": name, "values": dict(zip(COLUMNS, values, strict=False))}


def measure(
    variations: Mapping[str, Sequence[str]], overrides: Sequence[str], folder: Path, console: Console
) -> list[dict[str, Any]]:
    """Fine-tune with the base's settings and with every variation, one after another.

    Args:
        variations: name -> overrides on top of the base's.
        overrides: of the base.
        folder: holds the dataset and one work directory per variation.
        console: shows progress.
    """
    planned: list[tuple[str, Sequence[str], list[str], Path, PipelineConfig]] = []
    for name, own in {BASE: [], **variations}.items():
        settings, work = merge_overrides(overrides, own), folder / folder_of(name)
        planned.append((name, own, settings, work, compose_command("run", [*settings, f"work_dir={work}"])))
    lines: list[dict[str, Any]] = []
    for name, own, settings, work, config in planned:
        if config.threads:
            torch.set_num_threads(config.threads)
        try:
            kept = json.loads((work / RESULT).read_text())
        except (OSError, ValueError):
            kept = {}
        if kept.get("overrides") == settings:
            console.print(f"{name}: finished before, kept")
            lines += kept["lines"]
            continue
        console.rule(name)
        prepare(replace(config, work_dir=str(folder)), console)
        dataset = load_dataset(folder / "dataset")
        split = make_split(dataset, config.split, config.evaluation.target_events)
        started = time.perf_counter()
        stage = train_text_encoder(config, dataset, split, True, console)
        seconds = round(time.perf_counter() - started, 1)
        found = [line_of(name, dataset, split, config, stage, TEXT_VECTORS)]
        if name == BASE:
            found.insert(0, line_of(UNTRAINED, dataset, split, config, stage, FROZEN_VECTORS))
        report = json.loads((stage.folder / REPORT).read_text()).get("stage_one", {})
        found[-1] |= {"seconds": seconds, "history": report.get("validation_recall", []), "overrides": own}
        content = json.dumps({"overrides": settings, "lines": found}, indent=2) + "\n"
        write_atomically(work / RESULT, content)
        lines += found
    return lines


def to_markdown(name: str, command: str, lines: Sequence[dict[str, Any]]) -> str:
    """Return the table."""

    def cell(value: float | None) -> str:
        return "–" if value is None else f"{value:.4f}".removeprefix("0")

    header = (
        "variation", "recall@10", "cold among themselves", "with affinity: recall@10",
        "with affinity: cold among themselves", "seconds",
    )  # fmt: skip
    table = [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}"]
    for line in lines:
        cells = [cell(line["values"].get(column)) for column in COLUMNS]
        seconds = format(line["seconds"], ",.0f") if "seconds" in line else ""
        table.append(f"| {' | '.join([line['name'], *cells, seconds])} |")
    return "\n".join(
        [f"### Fine-tuning, from texts alone: {name}", "", "```", command, "```", "", *table, ""]
    )


def _text_encoder(options: argparse.Namespace, command: str, console: Console) -> str:
    """Compare variations and return their table."""
    variations = read_variations(options.variations, options.only)
    lines = measure(variations, options.overrides, options.folder / options.name, console)
    return to_markdown(options.name, command, lines)


if __name__ == "__main__":
    show("text_encoder", __doc__, _text_encoder)
