"""The processes that a process has started, from Linux's /proc."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found = [pid]
    for each in found:
        for path in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):
                found += [int(child) for child in path.read_text().split()]
    return found
