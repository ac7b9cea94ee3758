"""Training the baseline `sasrec_ids`: stage two as configured, on item ids without text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from conf.schema import PipelineConfig
from encoders.towers.towers import Towers
from encoders.training.fitting import delete_checkpoints
from encoders.training.train import train_towers
from features.data.dataset import Dataset, LongArray
from features.data.pipeline_step import Step, fingerprint
from features.data.splits import Split
from features.data.training_windows import refit_cut

FOLDER = "sasrec_ids"
REFIT_FOLDER = "sasrec_ids_refit"
EPOCHS = "epochs.json"


def ids_only_towers(
    config: PipelineConfig,
    dataset: Dataset,
    split: Split,
    exclude_seen: bool,
    end: LongArray,
    console: Console,
) -> Towers:
    """Train towers on ids alone, on what the system's towers learn from; unchanged ones are kept.

    Everything but the text is as configured for the user tower: width, layers, loss, negatives, epochs, early
    stopping on validation recall, and the refit for the test window. Id dropout is off, because without text
    nothing is left of an item.

    Args:
        config: of the run that the baseline belongs to.
        dataset: its dataset.
        split: training ends at `train_end`; `valid` says when to stop.
        exclude_seen: whether validation lists leave out the history.
        end: [users] up to where events are known to the lists that are asked for.
        console: progress goes here.
    """
    settings = replace(config.user_encoder, text=False, hybrid=True, id_dropout=0.0)
    inputs = fingerprint(
        dataset.info["content_hash"], dataset.info["event_weights"], config.seed, config.split, settings,
        exclude_seen, config.evaluation.target_events,
    )  # fmt: skip

    def towers(folder: str, inputs: str, end: LongArray, validate: bool, epochs: int) -> Step:
        stage = Step(Path(config.work_dir) / folder, inputs)
        if not stage.is_current():
            stage.reopen()
            console.print(f"training {folder}: the user tower without text")
            no_text = np.zeros((len(dataset.catalogue), 1), dtype=np.float32)
            checkpoints = Path(config.work_dir) / "checkpoints" / f"{folder}-{inputs}"
            trained, fitted = train_towers(
                replace(config, user_encoder=settings), dataset, no_text, end, split, validate, epochs,
                checkpoints, console,
            )  # fmt: skip
            trained.save(stage.folder)
            (stage.folder / EPOCHS).write_text(json.dumps(fitted.epochs))
            stage.complete()
            delete_checkpoints(checkpoints)
        return stage

    chosen = towers(FOLDER, inputs, split.train_end, True, settings.epochs)
    cut = refit_cut(dataset, split, config.refit)
    if cut is None or not np.array_equal(cut.end, end):
        return Towers.load(chosen.folder)
    epochs = json.loads((chosen.folder / EPOCHS).read_text())
    return Towers.load(towers(REFIT_FOLDER, fingerprint(inputs, config.refit), cut.end, False, epochs).folder)
