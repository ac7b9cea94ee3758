"""Measuring on validation alone: what a sweep chooses by, without a bundle and without a look at test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from conf.schema import PipelineConfig
from encoders.towers import TOWERS_FILE, Towers
from encoders.train import ENCODER_FOLDER, TEXT_VECTORS, TOWERS, Progressing, trainable, try_split
from features.dataset import Dataset, load_dataset
from features.splits import Split, exclude_seen
from features.stages import write_atomically
from features.statistics import Neighbours
from ranking.evaluation import BLOCK, sample_queries
from ranking.metrics import means, ranking_metrics
from ranking.offline import offline_system
from ranking.ranker import RANKER_FILE, Ranker
from ranking.recommender import Recommender
from ranking.stages import HEADLINE
from ranking.train import RANKER_FOLDER, build_recommender, ranker_stage

VALIDATION_FILE = "validation.json"
SHOWN = (f"recall@{HEADLINE}", f"ndcg@{HEADLINE}", "mrr")


def past_recommender(
    config: PipelineConfig, dataset: Dataset, split: Split, near: Neighbours | None = None
) -> Recommender:
    """Return the trained models with statistics as of the start of validation.

    Args:
        config: of the finished training steps.
        dataset: the dataset.
        split: its protocol.
        near: text neighbours of the catalogue where they are known; computed otherwise.
    """
    encoder, ranker = Path(config.work_dir) / ENCODER_FOLDER, Path(config.work_dir) / RANKER_FOLDER
    return build_recommender(
        config,
        dataset,
        np.load(encoder / TEXT_VECTORS),
        Towers.load(encoder / TOWERS) if (encoder / TOWERS / TOWERS_FILE).is_file() else None,
        split.train_end,
        split.train_time,
        Ranker.load(ranker) if (ranker / RANKER_FILE).is_file() else None,
        near,
    )


def validate(config: PipelineConfig, folder: Path, console: Console) -> float | None:
    """Measure the trained models on the validation queries and write `validation.json`.

    Args:
        config: of the finished training steps.
        folder: where the file goes; made when missing.
        console: shows progress and result.

    Returns:
        Validation ndcg@10, the same number as a full evaluation's, or None where there is nothing to
        measure on.

    Raises:
        InputError: when a training step is missing or was made with other settings.
    """
    dataset = load_dataset(Path(config.work_dir) / "dataset")
    ranker_stage(config, dataset).require("train-ranker")
    split = try_split(config, dataset)
    if split is None or not trainable(split, dataset):
        console.print(f"evaluate: {len(dataset.events):,} events are too few to divide; nothing was measured")
        return None
    exclude = exclude_seen(dataset, split, config.evaluation.exclude_seen)
    queries = sample_queries(split.valid, config.evaluation.max_users, config.seed)
    with Progressing(console).bar() as bar:
        task = bar.add_task("ranking the catalogue", total=len(queries))
        system = offline_system(
            past_recommender(config, dataset, split), dataset.events, exclude,
            advance=lambda n: bar.advance(task, n),
        )  # fmt: skip
        blocks = [
            system(queries.select(np.arange(start, min(start + BLOCK, len(queries)), dtype=np.int64))).items
            for start in range(0, len(queries), BLOCK)
        ]
    metrics = means(
        ranking_metrics(np.concatenate(blocks), queries, sorted({*config.evaluation.ks, HEADLINE}))
    )
    protocol = {
        "split": split.kind.value,
        "window": "valid",
        "queries": len(queries),
        "exclude_seen": exclude,
        "seed": config.seed,
        "dataset_hash": dataset.info.get("content_hash"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"protocol": protocol, "valid": metrics}, indent=2, allow_nan=False)
    write_atomically(folder / VALIDATION_FILE, text + "\n")
    table = Table(*SHOWN, title=f"validation, {split.kind.value}, {len(queries):,} queries")
    table.add_row(*(f"{metrics[name]:.4f}" for name in SHOWN))
    console.print(table)
    score: float | None = metrics[f"ndcg@{HEADLINE}"]
    return score
