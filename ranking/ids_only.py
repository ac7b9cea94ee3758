"""Training the baseline `sasrec_ids`: stage two as configured, on item ids without text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from conf.schema import PipelineConfig
from encoders.fitting import forget
from encoders.towers import Towers
from encoders.train import train_towers
from features.dataset import Dataset
from features.splits import Split
from features.stages import Stage, fingerprint

FOLDER = "sasrec_ids"


def ids_only_towers(
    config: PipelineConfig, dataset: Dataset, split: Split, exclude_seen: bool, console: Console
) -> Towers:
    """Train towers on ids alone, on what the published towers learn from; unchanged ones are kept.

    Everything but the text is as configured for the user tower: width, layers, loss, negatives, epochs, early
    stopping on validation recall. Id dropout is off, because without text nothing is left of an item.

    Args:
        config: of the run that the baseline belongs to.
        dataset: its dataset.
        split: training ends at `train_end`; `valid` says when to stop.
        exclude_seen: whether validation lists leave out the history.
        console: progress goes here.
    """
    settings = replace(config.user_encoder, text=False, hybrid=True, id_dropout=0.0)
    inputs = fingerprint(
        dataset.info["content_hash"], dataset.info["event_weights"], config.seed, config.split, settings,
        exclude_seen, config.evaluation.target_events,
    )  # fmt: skip
    stage = Stage(Path(config.work_dir) / FOLDER, inputs)
    if stage.is_current():
        return Towers.load(stage.folder)
    stage.reopen()
    console.print("training sasrec_ids: the user tower without text")
    no_text = np.zeros((len(dataset.catalogue), 1), dtype=np.float32)
    checkpoints = Path(config.work_dir) / "checkpoints" / f"{FOLDER}-{inputs}"
    towers, _ = train_towers(
        replace(config, user_encoder=settings), dataset, no_text, split.train_end, split.valid, exclude_seen,
        settings.epochs, checkpoints, console,
    )  # fmt: skip
    towers.save(stage.folder)
    stage.complete()
    forget(checkpoints)
    return towers
