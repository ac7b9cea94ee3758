"""Where a run's training begins: with the models of the last published run, or from the beginning."""

from __future__ import annotations

from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Final

from conf.errors import InputError
from conf.schema import PipelineConfig
from encoders.training.train import trainable, try_split
from encoders.training.warm import warm_source
from features.data.dataset import Dataset
from lifecycle.retrain.journal import journals, publisher
from lifecycle.retrain.night import Night
from lifecycle.retrain.window import iso

COLD: Final = "cold"
WARM: Final = "warm"


def earlier_models(night: Night) -> Path | None:
    """Return the folder of the served version's run; None without one, or where a cold start is due.

    After a rollback that is not the last published run, whose models were bad.
    """
    earlier = [journal for journal in journals(night.places.audit) if journal.run != night.journal.run]
    starts = [journal.steps["train"]["start"] for journal in earlier if "train" in journal.steps]
    warm = len(list(takewhile(WARM.__eq__, reversed(starts))))  # runs since the last cold one
    if warm + 1 >= night.config.retrain.cold_every:
        return None
    source = publisher(earlier, night.record("prepare")["served_version"])
    folder = None if source is None else night.places.runs / source.run
    return folder if folder is not None and folder.is_dir() else None


def begun(night: Night, config: PipelineConfig, dataset: Dataset) -> PipelineConfig:
    """Return the settings with the source of a warm start, which a setting of the call replaces.

    Validation begins where the learning of the source ends, if that is later than its share of the events
    says: the earlier models must not know it.

    Args:
        night: the run.
        config: settings with the window of the run.
        dataset: of the run.
    """
    earlier = earlier_models(night)
    if config.warm_start is not None or earlier is None:
        return config
    warm = replace(config, warm_start=str(earlier))
    try:
        source = warm_source(warm, dataset.facts)
        split = try_split(warm, dataset)
        assert source is not None
        assert split is not None, "the plan has measured the window"
        end = max(source.learned_until.values())
        if end > split.train_time:
            warm = replace(warm, split=replace(warm.split, valid_start=iso(end)))
            split = try_split(warm, dataset)
        if not trainable(split, dataset):
            raise InputError(f"too few events after {iso(end)}, up to which it has learned")
    except InputError as error:
        night.say(f"training from the beginning, not with the models of {earlier.name}: {error}")
        return config
    return warm
