"""The processes that a process has started, from Linux's /proc; one that ends while it is read has none."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def children(pid: int) -> list[int]:
    """Return the running processes that any thread of a process has started."""
    found: list[int] = []
    with suppress(OSError):  # the process has ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found += [int(child) for child in (thread / "children").read_text().split()]
    return found


def tree(pid: int) -> list[int]:
    """Return a process and its descendants."""
    found = [pid]
    for each in found:
        found += children(each)
    return found
