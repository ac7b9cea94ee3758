"""How much memory is free."""

from __future__ import annotations

import re
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_CONTROL_GROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process can still allocate on a device; 0 where that is unknown.

    On a CPU it is Linux's MemAvailable, or what remains of the control group's limit (version 2, as in
    containers), whichever is less.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        available = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:  # not Linux
        return 0
    free = 1024 * int(available.group(1)) if available else 0
    try:
        limit = int((_CONTROL_GROUP / "memory.max").read_text())
        used = int((_CONTROL_GROUP / "memory.current").read_text())
    except (OSError, ValueError):  # no control group, or no limit (`max`)
        return free
    return min(free, max(limit - used, 0))
