"""The device that arithmetic runs on, decided once for a process."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor

from conf.errors import InputError

CPU: Final = torch.device("cpu")


def describe_device(device: torch.device) -> str:
    """Return a device's name for logs, for example `cuda:0 NVIDIA H100` or `cpu`."""
    return f"{device} {torch.cuda.get_device_name(device)}" if device.type == "cuda" else str(device)


def resolve_device(setting: str) -> torch.device:
    """Return the device that the key `device` names; `auto` is the first GPU, or the CPU without one.

    Args:
        setting: `auto`, `cpu`, `cuda` or `cuda:N`, as `conf.checks.check_device` accepts it.

    Raises:
        InputError: the setting names a GPU that torch does not see.

    """
    if setting == "cpu" or (setting == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        reason = "was built without CUDA" if torch.version.cuda is None else "sees no GPU (see nvidia-smi -L)"
        raise InputError(
            f"device={setting}: torch {torch.__version__} {reason}; set device=cpu or device=auto"
        )
    number = int(setting.partition(":")[2] or 0)
    count = torch.cuda.device_count()
    if number >= count:
        raise InputError(
            f"device={setting}: torch sees {count} GPU{'s' if count > 1 else ''}, "
            f"numbered from 0; set device=cuda:{count - 1} or device=auto"
        )
    return torch.device("cuda", number)


def upload(array: np.ndarray, device: torch.device) -> Tensor:
    """Return an array as a tensor on a device; on the CPU the two share memory.

    The copy to a GPU is asynchronous, from page-locked memory.
    """
    tensor = torch.from_numpy(array)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def fits(size: int, device: torch.device) -> bool:
    """Return whether `size` bytes take at most half of a device's free memory."""
    if device.type == "cpu":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return size <= free // 2
