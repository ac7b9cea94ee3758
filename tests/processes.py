"""Which processes run, from Linux's /proc; one that ends while it is read counts as ended."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path


def runs(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # ended before the file was opened, or after
        return False


def children(pid: int) -> list[int]:
    """Return the running processes that any thread of a process has started."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has ended
            found += [int(child) for child in file.read_text().split()]
    return found


def descendants(pid: int) -> list[int]:
    """Return the running processes that a process has started, and all that these have."""
    found = children(pid)
    return found + [grandchild for child in found for grandchild in descendants(child)]
