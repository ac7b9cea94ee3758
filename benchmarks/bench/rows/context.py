"""What every row gets: folders, threads, the machine's limits, and the interpreters of the others."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from benchmarks.bench.peers import interpreter
from benchmarks.bench.timing import Runs, Worker, alternate, run_worker
from conf.errors import InputError

WORKERS: Final = Path(__file__).parents[1] / "workers"


@dataclass(frozen=True)
class Context:
    """The settings of a run."""

    folder: Path
    """Of the run; each row has one inside."""
    environments: Path
    machine: Mapping[str, Any]
    console: Console
    threads: int
    rounds: int
    beauty: Path | None
    """Folder with items.parquet and events.parquet of Amazon Beauty."""
    scale: float
    """Share of the full size of each work, for a trial of the benchmark itself."""
    seconds: float = 1200.0
    """Longest time of one worker."""

    @property
    def precisions(self) -> dict[str, str]:
        """Precision -> its limit in `machine`: of floating-point numbers with instructions for them."""
        bf16 = {"bf16": "gflops_bf16"} if self.machine["gflops_bf16"] else {}
        return {"fp32": "gflops_fp32", **bf16}

    def part(self, name: str) -> Path:
        """Return a row's folder."""
        made = self.folder / name
        made.mkdir(parents=True, exist_ok=True)
        return made

    def sized(self, count: int) -> int:
        """Return a number of rows at the run's scale, 100 at least."""
        return max(int(count * self.scale), min(count, 100))

    def own(self, name: str, module: str, *arguments: object) -> Worker:
        """Return a worker of this project."""
        command = [sys.executable, "-m", f"benchmarks.bench.workers.{module}", *map(str, arguments)]
        return Worker(name, command, self.environment())

    def other(self, name: str, peer: str, script: str, *arguments: object) -> Worker:
        """Return a worker in another project's environment.

        Raises:
            InputError: it cannot be installed.

        """
        return self.script(name, peer, WORKERS / f"{script}.py", *arguments)

    def script(self, name: str, peer: str, path: Path, *arguments: object) -> Worker:
        """Return a worker in another project's environment, from a script anywhere.

        Raises:
            InputError: it cannot be installed.

        """
        python = interpreter(peer, self.environments, self.console)
        command = [python, str(path.resolve()), *map(str, arguments)]
        return Worker(name, command, self.environment(), peer=True)

    def environment(self) -> dict[str, str]:
        """Return variables that give every library the same threads."""
        names = (
            "OMP_NUM_THREADS",
            "OPENBLAS_NUM_THREADS",
            "MKL_NUM_THREADS",
            "POLARS_MAX_THREADS",
            "NUMBA_NUM_THREADS",
        )
        return dict.fromkeys(names, str(self.threads))

    def alternate(
        self, workers: Sequence[Worker], folder: Path, failures: list[str] | None = None
    ) -> dict[str, Runs]:
        """Run workers in turns; errors of other projects are added to `failures` where it is given."""
        return alternate(workers, self.rounds, folder, self.seconds, failures)

    def once(self, worker: Worker, folder: Path) -> dict[str, Any]:
        """Run a worker a single time, and return what it wrote."""
        return run_worker(worker, folder, self.seconds)

    def beauty_file(self, name: str) -> Path:
        """Return a file of Amazon Beauty.

        Raises:
            InputError: the folder is not given, or lacks it.

        """
        if self.beauty is None or not (self.beauty / name).is_file():
            raise InputError(
                f"needs {name} of Amazon Beauty: make bench BEAUTY=folder (docs/data.md says where it is)"
            )
        return self.beauty / name
