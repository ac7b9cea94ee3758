"""The chosen models as of the start of validation, with which validation lists are made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from conf.schema import PipelineConfig
from encoders.text.catalogue_vectors import read_vectors
from encoders.training.train import ENCODER_FOLDER, TEXT_VECTORS
from features.data.dataset import Dataset
from features.data.splits import Split, exclude_seen
from features.data.statistics import Neighbours
from features.data.training_windows import Cut
from ranking.pipeline.refit import chosen_models
from ranking.recommender import Recommender
from ranking.training.fit_novelty import fit_novelty
from ranking.training.text_arrays import TextArrays
from ranking.training.train import build_recommender


def validation_recommender(
    config: PipelineConfig,
    dataset: Dataset,
    split: Split,
    near: Neighbours | None = None,
    device: torch.device | None = None,
) -> Recommender:
    """Return the validated models with the statistics of the events before the validation window.

    Args:
        config: of the run, whose work directory has the models.
        dataset: its dataset.
        split: its split.
        near: nearest texts where they are known.
        device: where to run in place of the configured device.

    """
    if device is not None:
        config = replace(config, device=str(device))
    work = Path(config.work_dir)
    chosen = chosen_models(work)
    vectors = read_vectors(work / ENCODER_FOLDER / TEXT_VECTORS)
    texts = TextArrays.of(config, vectors, chosen.affinity, near)
    past = build_recommender(
        config, dataset, texts, chosen.towers, split.train_end, split.train_time, chosen.ranker
    )
    exclude = exclude_seen(dataset, split, config.evaluation.exclude_seen)
    cut = Cut(split.train_end, split.train_time)
    past.novelty = fit_novelty(past, dataset.events, cut, exclude, config.seed)
    past.novelty_budget = config.rerank.novelty
    return past
