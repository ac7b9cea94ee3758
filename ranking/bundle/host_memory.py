"""A check that a bundle fits into the memory of this machine, or of this container, before it is loaded.

A process that takes more is ended by the kernel without a word of its own: at a start it would look like a
crash, and at a reload it may be the model that serves which is ended. `device_memory` does the same for GPUs.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conf.errors import InputError

_ROOT: Final = Path("/")
_MB: Final = 2**20
_COPIES: Final = 1.8
"""Bytes of memory at the peak of loading a version, per byte of its files."""
_WORKING_BYTES: Final = 90 * _MB
"""Memory of a model beside its arrays: batches of lists, and compiled loops."""
_LIBRARY_BYTES: Final = 600 * _MB
"""Memory of the libraries in the server's processes, all models together, beyond that of this process."""
_UNLIMITED: Final = 2**60
"""cgroup v1 writes a huge number where there is no limit."""


class NoRoomError(InputError):
    """A version does not fit into memory, now."""


@dataclass(frozen=True)
class Room:
    """Memory that a process can still take."""

    free: int
    """Bytes."""
    where: str
    """What limits it, for messages."""


def room(root: Path = _ROOT) -> Room | None:
    """Return the tightest of the container's limit, the machine's memory and the process's; None if unknown.

    Pages of files that the kernel can drop count as free.

    Args:
        root: holds `proc` and `sys`; another folder in tests.

    """
    rooms = [found for found in (_control_group(root), _machine(root), _process(root)) if found is not None]
    return min(rooms, key=lambda found: found.free, default=None)


def bytes_needed(folder: Path, libraries: bool = True, indexes: bool = True) -> int:
    """Return an estimate of the memory at the peak of loading a version on a CPU.

    Measured on bundles of 3,659, 12,101, 67,823 and 100,000 items (the last one generated), without the
    libraries: 279, 366, 948 and 1,260 MB. The estimates are 291, 391, 952 and 1,390 MB.

    Args:
        folder: of the version; missing files count as empty.
        libraries: whether the libraries have to be loaded, too, which is so for the first model of a server.
        indexes: whether this process searches, and so needs FAISS's indexes.

    """
    read = [path for path in folder.rglob("*") if path.is_file() and (indexes or path.suffix != ".faiss")]
    files = sum(path.stat().st_size for path in read)
    return int(_COPIES * files) + _WORKING_BYTES + _LIBRARY_BYTES * libraries


def check_memory(needed: int, what: str, found: Room | None, advice: str) -> None:
    """Check that there is memory for something.

    Raises:
        NoRoomError: there is too little; one line with both amounts and what to do.

    """
    if found is not None and needed > found.free:
        raise NoRoomError(
            f"too little memory for {what}: it takes about {needed // _MB:,} MB, and "
            f"{found.free // _MB:,} MB are free ({found.where}); {advice}, or set memory_check=false if the "
            "estimate is wrong"
        )


def private_bytes(pid: int, root: Path = _ROOT) -> int:
    """Return the memory that a process shares with no other, which its end frees; 0 if unknown."""
    fields = _fields(root / f"proc/{pid}/smaps_rollup")
    return 1024 * (fields.get("Private_Clean", 0) + fields.get("Private_Dirty", 0))


def memory_kills(root: Path = _ROOT) -> int:
    """Return how many processes the kernel has ended for want of memory, in this container or else here."""
    for group, version in _groups(root):
        file = group / ("memory.events" if version == 2 else "memory.oom_control")
        kills = _fields(file).get("oom_kill")
        if kills is not None:
            return kills
    return _fields(root / "proc/vmstat").get("oom_kill", 0)


def killed_since(before: int, root: Path = _ROOT) -> str:
    """Return that the kernel has ended processes for want of memory since a count, or an empty string."""
    kills = memory_kills(root) - before
    if kills <= 0:
        return ""
    found = room(root)
    left = "" if found is None else f"; {found.free // _MB:,} MB are free now ({found.where})"
    return f"the kernel has ended {kills} process{'es' * (kills > 1)} for want of memory{left}"


def _machine(root: Path) -> Room | None:
    available = _fields(root / "proc/meminfo").get("MemAvailable")
    return None if available is None else Room(available * 1024, "of this machine's memory")


def _control_group(root: Path) -> Room | None:
    """Return what the container's limit leaves; of nested groups, the one of this process and its parents."""
    rooms = []
    for group, version in _groups(root):
        if version == 2:
            rooms.append(_group(group, "memory.max", "memory.current", "inactive_file"))
        else:
            limit, usage = "memory.limit_in_bytes", "memory.usage_in_bytes"
            rooms.append(_group(group, limit, usage, "total_inactive_file"))
    found = [each for each in rooms if each is not None]
    return min(found, key=lambda each: each.free, default=None)


def _groups(root: Path) -> Iterator[tuple[Path, int]]:
    """Yield the folders of this process's control groups of memory, inner ones first, and their version."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, version = root / "sys/fs/cgroup", 2
        elif "memory" in controllers.split(","):
            base, version = root / "sys/fs/cgroup/memory", 1
        else:
            continue
        folder = base / path.lstrip("/")
        # Inside a container the path may be the host's; then the files are at the root of the mount.
        for group in (folder, *folder.parents) if folder.is_dir() else (base,):
            if group.is_relative_to(base):
                yield group, version


def _group(folder: Path, limit_file: str, usage_file: str, cache: str) -> Room | None:
    limit, usage = _text(folder / limit_file).strip(), _text(folder / usage_file).strip()
    if not limit.isdigit() or not usage.isdigit() or int(limit) >= _UNLIMITED:
        return None
    droppable = _fields(folder / "memory.stat").get(cache, 0)
    free = max(0, int(limit) - int(usage) + droppable)
    return Room(free, f"of the container's limit of {int(limit) // _MB:,} MB")


def _process(root: Path) -> Room | None:
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _text(root / "proc/self/statm").split()
    if limit == resource.RLIM_INFINITY or not pages:
        return None
    free = max(0, limit - int(pages[0]) * os.sysconf("SC_PAGE_SIZE"))
    return Room(free, f"of the address space that ulimit -v leaves, {limit // _MB:,} MB")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _fields(path: Path) -> dict[str, int]:
    """Return the numbers of a file of lines `name: number` or `name number`."""
    found = {}
    for line in _text(path).splitlines():
        words = line.replace(":", " ").split()
        if len(words) > 1 and words[1].isdigit():
            found[words[0]] = int(words[1])
    return found
