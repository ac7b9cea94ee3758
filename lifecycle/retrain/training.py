"""The step `train`: the models of the run, up to the measured window."""

from __future__ import annotations

import time
from typing import Any

from conf.schema import Refit
from encoders.device import describe_device, resolve_device
from encoders.training.train import train_encoder
from lifecycle.retrain.night import Night
from lifecycle.retrain.planning import candidate_settings
from lifecycle.retrain.preparing import load_prepared
from lifecycle.retrain.warming import COLD, WARM
from ranking.pipeline.refit import refit
from ranking.training.train import train_ranker


def train_step(night: Night) -> dict[str, Any]:
    """Train the candidate; finished parts of an interrupted training are kept.

    Returns:
        How it began, and seconds of each part.
    """
    dataset, config = load_prepared(night), candidate_settings(night)
    begins = "from the beginning" if config.warm_start is None else f"with the models of {config.warm_start}"
    night.say(f"training on {describe_device(resolve_device(config.device))}, {begins}")
    seconds = {}
    parts = {"text encoder and towers": train_encoder, "ranking head": train_ranker}
    for name, part in parts.items():
        begun = time.perf_counter()
        part(config, night.console, dataset)
        seconds[name] = round(time.perf_counter() - begun, 1)
    if config.refit is not Refit.never:
        begun = time.perf_counter()
        refit(config, night.console, dataset)
        seconds["refit"] = round(time.perf_counter() - begun, 1)
    start = COLD if config.warm_start is None else WARM
    return {"start": start, "source": config.warm_start, "parts": seconds}
