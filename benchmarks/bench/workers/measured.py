"""What the workers of this project share: the times of some work, its peak memory, and its profile."""

from __future__ import annotations

import cProfile
import pstats
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

TOP: Final = 5
Result = TypeVar("Result")


def peak_mib() -> float:
    """Return the peak resident memory of this program; ru_maxrss would count the one that started it."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) / 1024


def timed(work: Callable[[], Result]) -> tuple[Result, dict[str, float]]:
    """Return what some work returns, with its `seconds`, `cpu_seconds` and `peak_mib`."""
    began, cpu = time.perf_counter(), time.process_time()
    result = work()
    figures = {"seconds": time.perf_counter() - began, "cpu_seconds": time.process_time() - cpu}
    return result, figures | {"peak_mib": peak_mib()}


def top_functions(work: Callable[[], Any]) -> list[str]:
    """Return the functions with the largest time of their own, each with its share, largest first."""
    profile = cProfile.Profile()
    profile.runcall(work)
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    total = sum(entry[2] for entry in stats.values()) or 1.0
    largest = sorted(stats.items(), key=lambda item: -item[1][2])[:TOP]
    return [f"{_name(*where)} {entry[2] / total:.0%}" for where, entry in largest]


def top_operations(work: Callable[[], Any]) -> list[str]:
    """Return PyTorch's operations with the largest CPU time of their own, each with its share, largest first.

    Unlike a profile of Python it divides the backward pass; what is not an operation is in the total, too.
    """
    from torch.profiler import ProfilerActivity, profile

    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as found:
        work()
        total = time.perf_counter() - began
    entries = sorted(found.key_averages(), key=lambda entry: -entry.self_cpu_time_total)[:TOP]
    return [f"`{entry.key}` {entry.self_cpu_time_total / 1e6 / total:.0%}" for entry in entries]


def _name(path: str, line: int, function: str) -> str:
    """Return a short name of a function."""
    if path == "~":  # compiled code
        found = re.search(r"(?:method|function) '?([\w.]+)'? ?(?:of '([\w.]+)')?", function)
        bare = function.strip("<>").removeprefix("built-in method ")
        return f"`{found.group(1) if found and 'method ' in function and 'of' in function else bare}`"
    return f"`{Path(path).stem}.{function}`"
