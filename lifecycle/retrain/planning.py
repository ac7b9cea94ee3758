"""The step `plan`: where the measured window begins, and how many shoppers it has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from conf.errors import InputError
from conf.schema import PipelineConfig
from encoders.training.train import trainable, try_split
from features.data.dataset import Dataset
from features.data.splits import Split
from lifecycle.retrain.night import Night
from lifecycle.retrain.outcomes import EndOfRunError, Outcome
from lifecycle.retrain.preparing import load_prepared, run_settings
from lifecycle.retrain.warming import begun
from lifecycle.retrain.window import Served, iso, newest_time, window_start
from ranking.comparison.window import Window, make_window


def plan_step(night: Night) -> dict[str, Any]:
    """Choose the window.

    Where nothing is served yet, a shop that is too young to be measured gets its first model all the same.

    Returns:
        Where the window begins and ends, its shoppers and choices, and what the served model has learnt.

    Raises:
        EndOfRunError: nothing is left to measure on, or too little to train on.
    """
    dataset = load_prepared(night)
    version = night.record("prepare")["served_version"]
    served = None if version is None else Served.of(night.store, version)
    newest = newest_time(dataset.events.time)
    start = window_start(newest, served, night.config.retrain.window_days)
    record = {
        "served_version": version,
        "served_learnt_before": None if served is None else iso(served.learnt_before),
        "newest_event": iso(newest),
        "window_start": iso(start),
        "measured": True,
    }
    config = with_window(run_settings(night), iso(start))
    try:
        split, window = _measurable(config, dataset)
    except InputError as error:
        if served is None:
            night.say(f"the first model is not measured: {error}")
            return {**record, "measured": False, "not_measured": str(error)}
        raise EndOfRunError(Outcome.too_little, str(error), record) from error
    begins = begun(night, config, dataset)
    record |= {
        "warm_start": begins.warm_start,
        "valid_start": begins.split.valid_start,
        "queries": len(window.queries),
        "targets": len(window.queries.targets),
        "training_events": int((split.state_end - dataset.events.offsets[:-1]).sum()),
    }
    night.say(
        f"window from {iso(start)} to {iso(newest)}: {record['queries']:,} shoppers, "
        f"{record['targets']:,} choices"
    )
    return record


def _measurable(config: PipelineConfig, dataset: Dataset) -> tuple[Split, Window]:
    """Return split and window.

    Raises:
        InputError: too little before the window to train on, or nothing in it to measure on.
    """
    start = config.split.test_start
    split = try_split(config, dataset)
    if split is None or not trainable(split, dataset):
        raise InputError(
            f"of {len(dataset.events):,} events those before {start}, where the window begins, are too few "
            "to train on; set retrain.window_days to less"
        )
    return split, make_window(dataset, split, config.evaluation, config.seed)


def with_window(config: PipelineConfig, start: str) -> PipelineConfig:
    """Return settings whose test window begins at an ISO time; validation is a share of what is before."""
    return replace(config, split=replace(config.split, test_start=start))


def candidate_settings(night: Night) -> PipelineConfig:
    """Return the settings of the new model: it learns from everything before the window."""
    plan = night.record("plan")
    config = run_settings(night)
    if not plan["measured"]:
        return config
    config = with_window(config, plan["window_start"])
    split = replace(config.split, valid_start=plan["valid_start"])
    return replace(config, split=split, warm_start=plan["warm_start"])
