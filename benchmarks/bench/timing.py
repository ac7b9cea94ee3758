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
    peer: bool = False
    """Whether it is another project, which gets no import path of this one, and its folder as the current."""


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


def run_program(
    command: Sequence[str], name: str, folder: Path, environment: Mapping[str, str], seconds: float,
    peer: bool = False,
) -> Path:  # fmt: skip
    """Run a program with its output in a log, and return the log.

    Args:
        command: program and arguments.
        name: of the log, and in errors.
        folder: gets the log; the current folder of another project's program.
        environment: variables besides those of this process.
        seconds: longest time.
        peer: whether it is another project's, which gets no import path of this one.

    Raises:
        InputError: it failed, or took longer than allowed; the last lines of its output are quoted.

    """
    log = folder / f"{file_name(name)}.log"
    inherited = {key: value for key, value in os.environ.items() if not (peer and key == "PYTHONPATH")}
    with log.open("w") as output:
        try:
            done = subprocess.run(
                command, stdout=output, stderr=subprocess.STDOUT, check=False,
                env={**inherited, **CALM, **environment}, timeout=seconds, cwd=folder if peer else None,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise InputError(f"{name}: not finished after {seconds:,.0f} s; see {log}") from error
    if done.returncode:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        raise InputError(f"{name}: exit code {done.returncode}; see {log}: {' / '.join(lines[-TAIL:])}")
    return log


def file_name(name: str) -> str:
    """Return a worker's name as that of its files."""
    return name.replace(" ", "_").replace("/", "_")


def run_worker(worker: Worker, folder: Path, seconds: float) -> dict[str, Any]:
    """Run a worker once and return its result.

    Raises:
        InputError: it failed, or took longer than allowed, or wrote no result.

    """
    folder = folder.resolve()
    target = folder / f"{file_name(worker.name)}.json"
    target.unlink(missing_ok=True)
    command = [*worker.command, str(target)]
    log = run_program(command, worker.name, folder, worker.environment, seconds, worker.peer)
    if not target.is_file():
        raise InputError(f"{worker.name}: ended without a result; see {log}")
    found: dict[str, Any] = json.loads(target.read_text())
    return found


def alternate(
    workers: Sequence[Worker], rounds: int, folder: Path, seconds: float, failures: list[str] | None = None
) -> dict[str, Runs]:
    """Run workers in turns, A B A B, so that a machine that slows down slows all of them.

    Args:
        workers: the sides.
        rounds: runs of each.
        folder: gets their results and logs.
        seconds: longest time of one run.
        failures: gets the error of another project's worker that failed, which is then left out.

    Returns:
        The runs of each, by its name.

    Raises:
        InputError: a worker of this project failed, or without `failures` any.

    """
    found: dict[str, list[dict[str, Any]]] = {worker.name: [] for worker in workers}
    for _ in range(rounds):
        for worker in workers:
            if worker.name not in found:
                continue
            try:
                found[worker.name].append(run_worker(worker, folder, seconds))
            except InputError as error:
                if failures is None or not worker.peer:
                    raise
                failures.append(str(error))
                del found[worker.name]
    return {name: Runs(name, runs) for name, runs in found.items()}
