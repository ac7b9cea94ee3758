"""The newest events that neither the new nor the served model has learnt from, on which both are measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from conf.schema import Refit, SplitKind
from encoders.training.warm import LEARNED_UNTIL
from features.data.dataset import LongArray
from ranking.bundle.store import MANIFEST, VERSIONS
from ranking.comparison.sides import run_settings

DAY = 86_400


def iso(seconds: int) -> str:
    """Return Unix seconds as an ISO time in UTC."""
    return f"{np.datetime64(seconds, 's')}Z"


@dataclass(frozen=True)
class Served:
    """What the served model has learnt."""

    version: str
    learnt_before: int
    """Unix seconds; it has learnt from no event at this time or later."""

    @classmethod
    def of(cls, store: Path, version: str) -> Served:
        """Read the manifest of a version."""
        folder = store / VERSIONS / version
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        settings = run_settings(folder)
        by_time = settings is not None and settings[0].kind is SplitKind.global_time
        exclusive = by_time and manifest.get("refit") != Refit.everything.value
        end = int(manifest["data_end"]) + (0 if exclusive else 1)
        return cls(version, max([end, *manifest.get(LEARNED_UNTIL, {}).values()]))  # ancestors' included


def seconds_of(moment: str) -> int:
    """Return the Unix seconds of a time that `iso` has written."""
    return int(np.datetime64(moment.removesuffix("Z"), "s").astype(np.int64))


def window_start(newest: int, served: Served | None, days: float) -> int:
    """Return where the measured window begins, Unix seconds.

    `days` before the newest event, or where the served model's learning ends, whichever is later.

    Args:
        newest: time of the newest event.
        served: the served model; None for none.
        days: longest window.
    """
    latest = newest - int(days * DAY)
    return latest if served is None else max(latest, served.learnt_before)


def newest_time(times: LongArray) -> int:
    """Return the newest time that is not in the future, Unix seconds."""
    now = int(datetime.now(UTC).timestamp())
    past = times[times <= now]
    return int(past.max(initial=0))
