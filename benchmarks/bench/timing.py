"""Workers run in turns, each in a process of its own, and what each of them wrote."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final

from conf.errors import InputError

TAIL: Final = 3
"""Last lines of a failed worker's output that are quoted."""
CALM: Final = {"OMP_WAIT_POLICY": "PASSIVE", "TOKENIZERS_PARALLELISM": "false"}
"""Environment of every worker: a thread that waits must not count as one that works."""


@dataclass(frozen=True)
class Worker:
    """One side of a comparison."""

    name: str
    command: Sequence[str]
    """Program and arguments; the path of the JSON file that it writes is added."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Runs:
    """What one worker wrote, run by run."""

    name: str
    found: Sequence[Mapping[str, Any]]

    def median(self, key: str) -> float:
        """Return the median of a figure over the runs."""
        return float(median(float(one[key]) for one in self.found))

    def cpu_beside(self, other: Runs) -> str:
        """Return both sides' CPU seconds, which other load on the machine changes less than wall time."""
        return f"CPU s {self.median('cpu_seconds'):,.2f} beside {other.median('cpu_seconds'):,.2f}"


def run_worker(worker: Worker, folder: Path, seconds: float) -> dict[str, Any]:
    """Run a worker once and return its result.

    Raises:
        InputError: it failed, or took longer than allowed; the last lines of its output are quoted.

    """
    target = folder / f"{worker.name.replace(' ', '_').replace('/', '_')}.json"
    target.unlink(missing_ok=True)
    log = target.with_suffix(".log")
    with log.open("w") as output:
        try:
            done = subprocess.run(
                [*worker.command, str(target)], stdout=output, stderr=subprocess.STDOUT, check=False,
                env={**os.environ, **CALM, **worker.environment}, timeout=seconds,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{worker.name}: not finished after {seconds:,.0f} s; see {log}") from error
    if done.returncode or not target.is_file():
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise InputError(
            f"{worker.name}: exit code {done.returncode}; see {log}: {' / '.join(lines[-TAIL:])}"
        )
    found: dict[str, Any] = json.loads(target.read_text())
    return found


def alternate(workers: Sequence[Worker], rounds: int, folder: Path, seconds: float) -> dict[str, Runs]:
    """Run workers in turns, A B A B, so that a machine that slows down slows all of them.

    Returns:
        The runs of each, by its name.

    Raises:
        InputError: a worker failed.

    """
    found: dict[str, list[dict[str, Any]]] = {worker.name: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            found[worker.name].append(run_worker(worker, folder, seconds))
    return {name: Runs(name, runs) for name, runs in found.items()}
