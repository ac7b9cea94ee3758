"""The refit step: models are trained again on the validation events, too, with the validated settings.

Validation selects epochs and settings, so its events must not be trained on before. Afterwards they are the
closest to production traffic: towers, affinity and ranking head are trained again, for the selected number of
epochs, up to the test window (or to the end of the data). Nothing is selected here. The text encoder, which
takes longest and depends least on single items' events, is not refitted. After a warm start the validated
weights are trained further, as they know a part of the same events already.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from conf.schema import PipelineConfig
from encoders.device import resolve_device
from encoders.factors.affinity import AFFINITY_FILE, Affinity
from encoders.text.catalogue_vectors import read_vectors
from encoders.towers.towers import TOWERS_FILE, Towers
from encoders.training.fit_towers import train_towers
from encoders.training.fitting import delete_checkpoints
from encoders.training.train import (  # fmt: skip
    ENCODER_FOLDER,
    REPORT,
    TEXT_ENCODER,
    TEXT_VECTORS,
    TOWERS,
    text_contexts,
    trainable,
    try_split,
)
from encoders.training.warm import WARM, Beginning
from encoders.training.warm_text import affinity_settings, keeps_affinity
from features.data.dataset import Dataset, load_dataset
from features.data.pipeline_step import StepSpec
from features.data.splits import Split
from features.data.training_windows import Cut, refit_cut
from ranking.scoring.ranker import RANKER_FILE, Ranker
from ranking.training.train import RANKER, RANKER_FOLDER, collect_examples, fit_ranker

REFIT = StepSpec("refit", "refit", ("refit",), after=RANKER)


@dataclass(frozen=True)
class Models:
    """The published models beside the text encoder; None where there was too little data."""

    towers: Towers | None
    ranker: Ranker | None
    affinity: Affinity | None


def cut_for_refit(config: PipelineConfig, dataset: Dataset, split: Split | None) -> Cut | None:
    """Return the end of a refit's training events, or None where there is nothing to refit."""
    if split is None or not trainable(split, dataset):
        return None
    return refit_cut(dataset, split, config.refit)


def refit(config: PipelineConfig, console: Console, dataset: Dataset | None = None) -> Path | None:
    """Train and save the models that are published; a finished, unchanged step is skipped.

    Returns:
        The folder with the outputs, or None where the validated models are published.

    """
    dataset = dataset or load_dataset(Path(config.work_dir) / "dataset")
    split = try_split(config, dataset)
    cut = cut_for_refit(config, dataset, split)
    if cut is None:
        console.print("refit: nothing held back to learn from, the models stay as they are")
        return None
    assert split is not None
    step = REFIT.step(config, dataset.facts)
    if step.finished(config.reuse, console):
        return step.folder
    RANKER.step(config, dataset.facts).require()
    step.reopen()
    started = time.perf_counter()
    encoder, ranker_folder = Path(config.work_dir) / ENCODER_FOLDER, Path(config.work_dir) / RANKER_FOLDER
    checkpoints = Path(config.work_dir) / "checkpoints"
    runs = {name: checkpoints / f"refit-{name}-{step.inputs}" for name in (TOWERS, RANKER_FOLDER)}
    vectors = read_vectors(encoder / TEXT_VECTORS)
    report = json.loads((encoder / REPORT).read_text())
    warm: list[str] = report[WARM]
    towers, _ = train_towers(
        config, dataset, vectors, cut.end, split, False, report["stage_two"]["epochs"], runs[TOWERS], console,
        Beginning.of_same(encoder / TOWERS, dataset) if TOWERS in warm else None,
    )  # fmt: skip
    towers.save(step.folder / TOWERS)
    affinity = Affinity.load(encoder / AFFINITY_FILE)
    if affinity is not None and not (TEXT_ENCODER in warm and keeps_affinity(config.warm)):
        affinity = Affinity.fit(
            vectors,
            text_contexts(config, dataset, cut.end),
            affinity_settings(config, TEXT_ENCODER in warm),
            config.seed,
            resolve_device(config.device),
        )
        assert affinity is not None, "fewer events were enough"
    if affinity is not None:
        affinity.save(step.folder / AFFINITY_FILE)
    if (ranker_folder / RANKER_FILE).is_file():
        train, calibration, _ = collect_examples(config, dataset, split, console, cut)
        report = json.loads((ranker_folder / REPORT).read_text())
        ranker, _ = fit_ranker(
            config, train, calibration, None, report["epochs"], runs[RANKER_FOLDER], console,
            ranker_folder if report[WARM] else None,
        )  # fmt: skip
        ranker.save(step.folder)
    step.complete()
    for run in runs.values():
        delete_checkpoints(run)
    console.print(
        f"refit: towers, affinity and ranking head trained up to {np.datetime64(cut.time, 's')}, "
        f"{time.perf_counter() - started:.1f} s"
    )
    return step.folder


def published_models(config: PipelineConfig, dataset: Dataset, split: Split | None) -> Models:
    """Load the models to publish: refitted or validated ones.

    Raises:
        InputError: the refit is missing or was made with other settings.

    """
    work = Path(config.work_dir)
    if cut_for_refit(config, dataset, split) is None:
        return chosen_models(work)
    step = REFIT.step(config, dataset.facts)
    step.require()
    return _load(step.folder, step.folder)


def chosen_models(work: Path) -> Models:
    """Load the validated models from a work directory."""
    return _load(work / ENCODER_FOLDER, work / RANKER_FOLDER)


def _load(encoder: Path, ranker: Path) -> Models:
    return Models(
        Towers.load(encoder / TOWERS) if (encoder / TOWERS / TOWERS_FILE).is_file() else None,
        Ranker.load(ranker) if (ranker / RANKER_FILE).is_file() else None,
        Affinity.load(encoder / AFFINITY_FILE),
    )
