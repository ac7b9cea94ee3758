"""The fit of stage two: towers that learn from the events up to a position, from earlier weights or none."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from rich.console import Console

from conf.schema import PipelineConfig
from encoders.device import resolve_device
from encoders.towers.sequences import passes_per_epoch
from encoders.towers.towers import Towers
from encoders.training.curves import Curve
from encoders.training.fitting import MONITORED, Fit, fit, process_count
from encoders.training.sharded_stage_two import ShardedStageTwo
from encoders.training.stage_two import StageTwo, validation_recall
from encoders.training.tracking import tracked_run
from encoders.training.warm import Beginning
from features.data.dataset import BoolArray, Dataset, FloatArray, LongArray
from features.data.prefixes import item_counts
from features.data.splits import Queries, Split, exclude_seen

SCORES: Final = 1 << 32
"""Scores of a validation, queries times items, at most: about ten seconds on two cores."""
FEWEST: Final = 4000
"""Validation queries are drawn from no fewer than this."""


def seen_items(dataset: Dataset, end: LongArray) -> BoolArray:
    """Return which items occur in the training prefixes, bool [items]."""
    return item_counts(dataset.events, end, len(dataset.catalogue)) > 0


def validation_sample(valid: Queries, items: int, seed: int) -> Queries:
    """Return the queries that every epoch is validated on: all, or as many as have `SCORES` scores."""
    most = max(SCORES // max(items, 1), FEWEST)
    if len(valid) <= most:
        return valid
    return valid.select(np.sort(np.random.default_rng(seed).choice(len(valid), most, replace=False)))


def tower_shape(config: PipelineConfig, dataset: Dataset, text_vectors: FloatArray) -> dict[str, Any]:
    """Return the shape of the towers of a run."""
    with torch.device("meta"):  # without their weights
        return Towers.from_config(
            config.user_encoder, text_vectors.shape[1], len(dataset.catalogue), len(dataset.kinds)
        ).shape


def train_towers(
    config: PipelineConfig,
    dataset: Dataset,
    text_vectors: FloatArray,
    end: LongArray,
    split: Split,
    validate: bool,
    epochs: int,
    checkpoints: Path,
    console: Console,
    begin: Beginning | None = None,
) -> tuple[Towers, Fit]:
    """Run stage two on the prefixes `end`; without validation, for exactly `epochs`.

    With earlier weights to begin with, these are kept where no epoch improves them.
    """
    settings, device = config.user_encoder, resolve_device(config.device)
    valid = validation_sample(split.valid, len(dataset.catalogue), config.seed)
    exclude = exclude_seen(dataset, split, config.evaluation.exclude_seen)
    torch.manual_seed(config.seed)
    towers = Towers.from_config(settings, text_vectors.shape[1], len(dataset.catalogue), len(dataset.kinds))
    seen = seen_items(dataset, end)
    kept: Towers | None = None
    if begin is None:
        towers.item_tower.fit_text(text_vectors, seen)
    else:
        begin.copy_into(towers)
        kept = copy.deepcopy(towers).eval()
        towers.item_tower.seen.copy_(torch.from_numpy(seen))
        settings = replace(settings, learning_rate=settings.learning_rate * config.warm.learning_rate)
    before = math.nan
    if kept is not None and validate:
        before = validation_recall(kept, dataset.events, valid, text_vectors, exclude)
        console.print(f"user tower as it began: validation recall@10 {before:.4f}")
    if kept is not None and epochs == 0:
        return kept, Fit(before, 0, [], Curve([], [], None))
    kind = ShardedStageTwo if config.shard_items and process_count(config.devices, device) > 1 else StageTwo
    module = kind(
        towers, settings, dataset.events, end, text_vectors, dataset.kind_weights,
        valid if validate else None, exclude, config.seed,
        ties_unordered=not dataset.info["has_order"],
        passes=passes_per_epoch(
            dataset.events, split.train_end, settings.max_length, settings.min_windows_per_epoch
        ),
    )  # fmt: skip
    result = fit(
        module,
        checkpoints,
        max_epochs=epochs,
        patience=settings.patience,
        monitor=MONITORED if validate else None,
        device=device,
        clip_norm=settings.clip_norm,
        console=console,
        devices=config.devices,
        tracked=tracked_run(config),
    )
    if kept is not None and result.best < before:
        return kept, replace(result, best=before, epochs=0)
    return module.trained, result
