"""What processes and a Redis have spent: CPU seconds, commands, bytes, memory."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis

from benchmarks.process_tree import tree

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pids: Sequence[int]) -> float:
    """Return the CPU time of processes and of all that they have started, ended ones included."""
    ticks = 0
    for pid in {one for root in pids for one in tree(root)}:
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(int(value) for value in fields[11:15])  # own user and system, ended children's
    return ticks / _TICKS


def own_cpu_seconds(pids: Sequence[int]) -> dict[int, float]:
    """Return the CPU time of processes and of their descendants that are alive, each without its children's.

    Beside `cpu_seconds` it serves where processes end that were alive before: a parent that does not wait for
    them has their time nowhere, so what was last seen of them has to be kept.
    """
    found = {}
    for pid in {one for root in pids for one in tree(root)}:
        with suppress(FileNotFoundError, ProcessLookupError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found[pid] = (int(fields[11]) + int(fields[12])) / _TICKS
    return found


def swap_cpu_seconds(spent: float, seconds: float, idle_ms: float) -> float:
    """Return the CPU seconds of a swap: what was spent, less what the same time costs without one.

    Args:
        spent: CPU seconds of the servers.
        seconds: in which they were spent.
        idle_ms: CPU milliseconds that the servers spend each second without a call.
    """
    return max(0.0, spent - seconds * idle_ms / 1000)


def memory_mib(pid: int) -> float:
    """Return the proportional resident memory of a process and its descendants: shared pages count once."""
    total = 0.0
    for one in tree(pid):
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            for line in Path(f"/proc/{one}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += float(line.split()[1]) / 1024
    return total


@dataclass(frozen=True)
class RedisUsage:
    """Counters of a Redis since its start."""

    scripts: int
    """Scripts that clients called: one for a list's history, one for a call that records events."""
    commands: int
    """All commands, those inside scripts included."""
    bytes_in: int
    bytes_out: int
    cpu_seconds: float
    memory: int
    """Bytes of data and overhead."""

    @classmethod
    def of(cls, port: int) -> RedisUsage:
        """Read the counters."""
        with redis.Redis(port=port, socket_timeout=20) as client:
            found: dict[str, Any] = dict(client.info("everything"))
        return cls(
            int(found.get("cmdstat_evalsha", {"calls": 0})["calls"]), int(found["total_commands_processed"]),
            int(found["total_net_input_bytes"]), int(found["total_net_output_bytes"]),
            float(found["used_cpu_user"]) + float(found["used_cpu_sys"]), int(found["used_memory"]),
        )  # fmt: skip

    def since(self, before: RedisUsage) -> dict[str, float]:
        """Return the differences of the counters."""
        names = ("scripts", "commands", "bytes_in", "bytes_out", "cpu_seconds")
        return {name: getattr(self, name) - getattr(before, name) for name in names}
