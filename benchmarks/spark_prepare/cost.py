"""CPU time and memory of a process with all its descendants, a Java machine and its workers among them."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.process_tree import tree

_EVERY_S = 0.2
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    wall_s: float
    cpu_s: float
    """Sampled, so that processes that nobody waited for are counted, too: short by at most a sample each."""
    peak_mib: float
    """Largest proportional set size of all processes together."""


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of a process, user and system, without its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _pss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    return 0


class _Sampler(threading.Thread):
    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.pid, self.peak = pid, 0
        self.cpu: dict[int, float] = {}
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(_EVERY_S):
            total = 0
            for each in tree(self.pid):
                with suppress(OSError):
                    self.cpu[each] = cpu_of(each)
                    total += _pss(each)
            self.peak = max(self.peak, total)


def cost_of(command: Sequence[str], log: Path, environment: dict[str, str]) -> Cost:
    """Run a command and return what it took.

    Args:
        command: its command line.
        log: gets its output.
        environment: additional variables.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    started = time.monotonic()
    with log.open("w") as output:
        process = subprocess.Popen(
            list(command), stdout=output, stderr=subprocess.STDOUT, env=os.environ | environment
        )
        sampler = _Sampler(process.pid)
        sampler.start()
        try:
            code = process.wait()
        finally:
            process.kill()
            sampler.done.set()
            sampler.join()
    if code:
        raise subprocess.CalledProcessError(code, list(command))
    wall = time.monotonic() - started
    return Cost(round(wall, 1), round(sum(sampler.cpu.values()), 1), round(sampler.peak / (1 << 20)))
