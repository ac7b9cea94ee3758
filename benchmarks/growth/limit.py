"""A memory limit that ends a process: a memory cgroup where one can be made, else RLIMIT_DATA."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_V1: Final = Path("/sys/fs/cgroup/memory")
_V2: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Limit:
    """A limit on the memory of a process and its children."""

    bytes: int
    folder: Path | None
    """Of the cgroup; None where RLIMIT_DATA limits each process alone."""

    def describe(self) -> str:
        """Return the kind of limit, for the result."""
        if self.folder is None:
            return "RLIMIT_DATA of each process, mapped arrays included: no memory cgroup can be made"
        return "memory cgroup, children and page cache included"

    def enter(self) -> None:
        """Put the calling process under the limit: between fork and exec."""
        if self.folder is None:
            resource.setrlimit(resource.RLIMIT_DATA, (self.bytes, self.bytes))
        else:
            (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def anonymous(self) -> int:
        """Return the bytes that the processes hold now and that no file backs; 0 without a cgroup."""
        if self.folder is None:
            return 0
        for line in (self.folder / "memory.stat").read_text().splitlines():
            name, _, value = line.partition(" ")
            if name in ("total_rss", "anon"):
                return int(value)
        return 0

    def killed(self) -> bool:
        """Tell whether the kernel ended a process at the limit, and not because the machine was full."""
        if self.folder is None:
            return False
        for name in ("memory.oom_control", "memory.events"):
            with suppress(OSError):
                counters = dict(line.split() for line in (self.folder / name).read_text().splitlines())
                reached = counters.get("max") or (self.folder / "memory.failcnt").read_text()
                return int(counters.get("oom_kill", 0)) > 0 and int(reached) > 0
        return False


def _make(name: str, most: int) -> Path | None:
    """Make a cgroup with a limit, or return None where that is not possible."""
    for root, setting in ((_V1, "memory.limit_in_bytes"), (_V2, "memory.max")):
        folder = root / name
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            (folder / setting).write_text(str(most))
        except OSError:
            folder.rmdir()
            continue
        return folder
    return None


@contextmanager
def limited(most: int) -> Iterator[Limit]:
    """Provide a limit and take it away again; processes under it have to have ended by then.

    Args:
        most: bytes.
    """
    folder = _make(f"shelfwise-growth-{os.getpid()}-{time.monotonic_ns()}", most)
    try:
        yield Limit(most, folder)
    finally:
        for _ in range(50):
            if folder is None or not folder.exists():
                break
            with suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.1)
