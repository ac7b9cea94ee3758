"""One step under a memory limit: its time, and the memory of it and its children."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.growth.limit import Limit, limited
from benchmarks.process_tree import tree

READY: Final = "listening on "
"""In the line that a server prints when it takes calls."""
_EVERY_S: Final = 0.2
_EVERY_PSS_S: Final = 2.0
"""The proportional set size takes the kernel longer to compute: half a second for some gigabytes."""
_PSS_SHARE: Final = 0.02
"""Of the time, at most, is spent on computing it: it holds up the process as well."""


@dataclass(frozen=True)
class Cost:
    """What a step took."""

    exit_code: int
    """0, or that of a failure; -9 (137) where the limit ended it."""
    out_of_memory: bool
    wall_s: float
    cpu_s: float
    """Of the process and its children."""
    peak_rss_mib: float
    """Largest resident memory of any one process, mapped files included."""
    peak_pss_mib: float
    """Largest proportional set size of all processes together, sampled every 2 s or less often."""
    peak_anonymous_mib: float
    """Largest memory of all processes that no file backs, sampled: what cannot be reclaimed."""


def _rollup(pid: int, fields: Sequence[str]) -> list[int]:
    """Return the sums of fields of smaps_rollup over a process tree, in bytes."""
    sums = dict.fromkeys(fields, 0)
    for each in tree(pid):
        with suppress(OSError):
            for line in Path(f"/proc/{each}/smaps_rollup").read_text().splitlines():
                name, _, rest = line.partition(":")
                if name in sums:
                    sums[name] += int(rest.split()[0]) * 1024
    return [sums[name] for name in fields]


class _Sampler(threading.Thread):
    """Samples the memory of a process tree until it is stopped."""

    def __init__(self, pid: int, limit: Limit) -> None:
        super().__init__(daemon=True)
        self.pid, self.limit = pid, limit
        self.anonymous = self.pss = 0
        self.done = threading.Event()

    def run(self) -> None:
        """Keep the largest values."""
        due = 0.0
        while not self.done.wait(_EVERY_S):
            with suppress(OSError):
                self.anonymous = max(self.anonymous, self.limit.anonymous())
            began = time.monotonic()
            if began >= due:
                pss, anonymous = _rollup(self.pid, ("Pss", "Anonymous"))
                self.pss, self.anonymous = max(self.pss, pss), max(self.anonymous, anonymous)
                took = time.monotonic() - began
                due = began + max(_EVERY_PSS_S, took / _PSS_SHARE)


def measured(
    command: Sequence[str],
    log: Path,
    most: int,
    environment: dict[str, str] | None = None,
    serves: bool = False,
    timeout_s: float = 86_400.0,
) -> tuple[Cost, str]:
    """Run a command under a limit.

    Args:
        command: its command line.
        log: gets its output.
        most: bytes of memory.
        environment: additional variables.
        serves: it is a server, which is ended when it prints that it is ready.
        timeout_s: it is killed after this.

    Returns:
        Its cost, and the kind of limit.
    """
    with limited(most) as limit, log.open("w+") as output:
        started = time.monotonic()
        process = subprocess.Popen(
            list(command),
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | (environment or {}),
            preexec_fn=limit.enter,
            start_new_session=True,
        )
        sampler = _Sampler(process.pid, limit)
        sampler.start()
        wall = None
        try:
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                if serves and wall is None and READY in log.read_text():
                    wall = time.monotonic() - started
                    time.sleep(2 * _EVERY_PSS_S)
                    process.send_signal(signal.SIGTERM)
                if time.monotonic() - started > timeout_s:
                    os.killpg(process.pid, signal.SIGKILL)
                time.sleep(_EVERY_S / 4)
        except BaseException:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            os.waitpid(process.pid, 0)
            raise
        finally:
            sampler.done.set()
            sampler.join()
            with suppress(ProcessLookupError):  # what a killed parent left behind
                os.killpg(process.pid, signal.SIGKILL)
        process.returncode = os.waitstatus_to_exitcode(status)
        code = process.returncode if not serves or wall is not None else process.returncode or 1
        mib = float(1 << 20)
        cost = Cost(
            code,
            limit.killed(),
            round(time.monotonic() - started if wall is None else wall, 2),
            round(usage.ru_utime + usage.ru_stime, 2),
            round(usage.ru_maxrss / 1024, 1),
            round(sampler.pss / mib, 1),
            round(sampler.anonymous / mib, 1),
        )
        return cost, limit.describe()


def as_json(cost: Cost, kind: str) -> dict[str, Any]:
    """Return a cost as plain values, with the kind of limit."""
    return {**cost.__dict__, "limit": kind}
