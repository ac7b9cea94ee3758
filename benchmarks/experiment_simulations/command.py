"""The command: simulated experiments with a known lift, counted.

    python -m benchmarks.experiment_simulations
    python -m benchmarks.experiment_simulations 'studies=[coverage]' runs=200
    python -m benchmarks.experiment_simulations 'studies=[server]' artifacts=work/demo/artifacts

Each study simulates many experiments on invented shoppers (`shoppers.py`), analyses each as `experiment
report` does, and counts. Intervals of the counts are Clopper and Pearson's. The study `server` is one
experiment through a real server (`through_server.py`).
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from omegaconf import OmegaConf
from rich.console import Console
from rich.table import Table

from benchmarks.experiment_simulations.studies import coverage, cuped, looks, novelty, splits
from benchmarks.experiment_simulations.through_server import through_server
from conf.errors import InputError

FILE: Final = "experiment_simulations.json"
Rows = list[dict[str, Any]]
STUDIES: Final[dict[str, Callable[[int, int], Rows]]] = {
    "coverage": coverage, "cuped": cuped, "looks": looks, "splits": splits, "novelty": novelty,
}  # fmt: skip
TITLES: Final = {
    "coverage": "intervals that contain the true lift, and that exclude 0",
    "cuped": "the error of ctr and value with and without the time before",
    "looks": "false findings in A/A experiments that are looked at every day",
    "splits": "broken splits that are caught",
    "novelty": "effects that fade, found",
    "server": "a lift that a running server's shoppers had",
}


@dataclass(frozen=True)
class Settings:
    """Settings of the command."""

    studies: list[str] = field(default_factory=lambda: list(STUDIES))
    runs: int = 1000
    """Experiments of each row."""
    seed: int = 0
    artifacts: str = "work/demo/artifacts"
    """Store with a bundle, for the study `server`."""
    shoppers: int = 3000
    """Of the study `server`."""
    output: str = FILE


def main() -> None:
    """Run the studies of the command line, print their tables and write the figures."""
    console = Console(width=120)
    gc.freeze()  # multipletests collects garbage at each call: of all modules, without this
    try:
        settings = _settings(sys.argv[1:])
    except InputError as error:
        console.print(str(error), markup=False, soft_wrap=True)
        sys.exit(2)
    found: dict[str, Any] = {"runs": settings.runs, "seed": settings.seed}
    for name in settings.studies:
        begun = time.process_time()
        if name == "server":
            found[name] = through_server(settings.artifacts, settings.shoppers, settings.seed)
        else:
            found[name] = STUDIES[name](settings.runs, settings.seed)
        console.print(table(TITLES[name], found[name]))
        console.print(f"{time.process_time() - begun:.0f} s of CPU time", style="dim")
        Path(settings.output).write_text(json.dumps(found, indent=2) + "\n")


def _settings(arguments: list[str]) -> Settings:
    given = OmegaConf.from_dotlist(arguments)
    unknown = [str(key) for key in given if key not in Settings.__dataclass_fields__]
    if unknown:
        raise InputError(
            f"no setting '{unknown[0]}'; settings are {', '.join(Settings.__dataclass_fields__)}"
        )
    settings = Settings(**OmegaConf.to_container(given))  # type: ignore[arg-type]
    for name in settings.studies:
        if name not in TITLES:
            raise InputError(f"no study '{name}'; studies are {', '.join(TITLES)}")
    return settings


def table(title: str, rows: Rows) -> Table:
    """Return rows as a table."""
    made = Table(title=title)
    for name in rows[0]:
        made.add_column(name.replace("_", " "))
    for row in rows:
        made.add_row(*(cell(value) for value in row.values()))
    return made


def cell(value: object) -> str:
    """Return a figure as text."""
    if isinstance(value, list):
        return f"{value[0]:.3g} to {value[1]:.3g}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
