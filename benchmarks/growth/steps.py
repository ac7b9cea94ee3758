"""The measured steps: a command each, with the settings of a large shop."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]

SETTINGS: Final = (
    "split=global_time",
    "text_encoder.max_steps=24",
    "text_encoder.validate_every=24",
    "text_encoder.max_tokens=24",
    "user_encoder.epochs=2",
    "user_encoder.windows_per_epoch=20000",
    "user_encoder.min_windows_per_epoch=0",
    "factors.dim=32",
    "factors.iterations=3",
    "ranker.max_queries=2000",
    "ranker.max_rows=500000",
    "ranker.epochs=2",
    "ranker.cuts=1",
    "evaluation.max_users=2000",
    "evaluation.bootstrap=100",
    "evaluation.baselines=[popularity,recent_popularity,own_repeats,item_knn]",
)
"""Trainings and evaluation end after a number of steps, windows, lists and queries, whatever the size."""
_OUTPUTS: Final = {
    "prepare": ("dataset",),
    "train-encoder": ("text", "encoder", "checkpoints"),
    "train-ranker": ("ranker",),
    "refit": ("refit",),
    "publish": ("publish", "artifacts"),
    "evaluate": ("evaluation",),
}
"""Folders of a step in the work directory. A step whose outputs are there and current would do nothing."""


@dataclass(frozen=True)
class Step:
    """A step of the pipeline as a command."""

    name: str
    arguments: tuple[str, ...]
    outputs: tuple[str, ...] = ()
    """Paths in the work directory to remove before it runs, so that all of its work is measured."""
    serves: bool = False
    """Whether it is a server, which is done when it answers that it is ready, and is ended then."""


def pipeline_steps(shop: Path, work: Path, port: int, settings: Sequence[str] = ()) -> list[Step]:
    """Return the steps in their order.

    Args:
        shop: folder of a generated shop.
        work: work directory of its run.
        port: of the server, and the next one of its metrics.
        settings: of the steps before it, in addition to `SETTINGS`.
    """
    data = (
        "data=files",
        f"data.items={shop}/items.parquet",
        f"data.events={shop}/events/*.parquet",
        f"work_dir={work}",
        *SETTINGS,
        *settings,
    )
    serve = (
        f"artifacts={work}/artifacts",
        f"state={work}/state.sqlite",
        f"port={port}",
        f"metrics.port={port + 1}",
    )
    steps = [Step(name, data, outputs) for name, outputs in _OUTPUTS.items()]
    return [
        *steps,
        Step("serve", serve, tuple(f"state.sqlite{end}" for end in ("", "-wal", "-shm")), serves=True),
    ]


def command_line(step: Step) -> list[str]:
    """Return the command of a step."""
    return [sys.executable, str(_ROOT / "shelfwise.py"), step.name, *step.arguments]
