"""Which processes run, from Linux's /proc; one that ends while it is read counts as ended."""

from __future__ import annotations

from pathlib import Path

from benchmarks.process_tree import children, tree

__all__ = ["children", "descendants", "runs"]


def runs(pid: int) -> bool:
    """Return whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # ended before the file was opened, or after
        return False


def descendants(pid: int) -> list[int]:
    """Return the running processes that a process has started, and all that these have."""
    return tree(pid)[1:]
