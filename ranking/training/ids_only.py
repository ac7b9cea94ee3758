"""Training the baseline `sasrec_ids`: stage two as configured, on item ids without text."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from conf.schema import PipelineConfig
from encoders.towers.towers import Towers
from encoders.training.fit_towers import train_towers
from encoders.training.fitting import delete_checkpoints
from features.data.dataset import Dataset, LongArray
from features.data.pipeline_step import StepSpec
from features.data.splits import Split
from features.data.training_windows import refit_cut

CHOSEN = StepSpec(
    "sasrec_ids", "sasrec_ids",
    ("seed", "split", "user_encoder", "evaluation.target_events", "evaluation.exclude_seen"),
)  # fmt: skip
REFITTED = StepSpec("sasrec_ids", "sasrec_ids_refit", ("refit",), after=CHOSEN)
EPOCHS = "epochs.json"


def ids_only_towers(
    config: PipelineConfig,
    dataset: Dataset,
    split: Split,
    end: LongArray,
    console: Console,
) -> Towers:
    """Return towers trained on ids alone, on the same events as the system's; cached if unchanged.

    All settings but the text are those of the user tower: width, layers, loss, negatives, epochs, early
    stopping on validation recall, and the refit for the test window. Id dropout is off, because there is no
    text to fall back on.

    Args:
        config: of the run that the baseline belongs to.
        dataset: its dataset.
        split: training ends at `train_end`; `valid` decides early stopping.
        end: [users] end of the events that the lists may use.
        console: shows progress.
    """
    settings = replace(config.user_encoder, text=False, hybrid=True, id_dropout=0.0)
    config = replace(config, user_encoder=settings)

    def towers(spec: StepSpec, end: LongArray, validate: bool, epochs: int) -> Path:
        step = spec.step(config, dataset.facts)
        if not step.is_current():
            step.reopen()
            console.print(f"training {spec.folder}: the user tower without text")
            no_text = np.zeros((len(dataset.catalogue), 1), dtype=np.float32)
            checkpoints = Path(config.work_dir) / "checkpoints" / f"{spec.folder}-{step.inputs}"
            trained, fitted = train_towers(
                config, dataset, no_text, end, split, validate, epochs, checkpoints, console
            )
            trained.save(step.folder)
            (step.folder / EPOCHS).write_text(json.dumps(fitted.epochs))
            step.complete()
            delete_checkpoints(checkpoints)
        return step.folder

    chosen = towers(CHOSEN, split.train_end, True, settings.epochs)
    cut = refit_cut(dataset, split, config.refit)
    if cut is None or not np.array_equal(cut.end, end):
        return Towers.load(chosen)
    return Towers.load(towers(REFITTED, cut.end, False, json.loads((chosen / EPOCHS).read_text())))
