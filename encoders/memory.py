"""How much memory is free."""

from __future__ import annotations

import re
from pathlib import Path

import torch

_MEMINFO = Path("/proc/meminfo")
_CONTROL_GROUP = Path("/sys/fs/cgroup")


def free_memory(device: torch.device) -> int:
    """Return the bytes that this process can still take on a device; 0 where nothing tells.

    On a CPU it is what Linux calls available, or what is left of the limit of the control group (version 2),
    as containers have one, whichever is less.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        said = re.search(r"^MemAvailable:\s+(\d+) kB", _MEMINFO.read_text(), re.MULTILINE)
    except OSError:  # not Linux
        return 0
    free = 1024 * int(said.group(1)) if said else 0
    try:
        limit = int((_CONTROL_GROUP / "memory.max").read_text())
        used = int((_CONTROL_GROUP / "memory.current").read_text())
    except (OSError, ValueError):  # none, or `max`
        return free
    return min(free, max(limit - used, 0))
