"""A check that a bundle fits into the memory of a GPU before it is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch

from conf.errors import InputError
from encoders.device import describe_device
from encoders.factors.co_purchase import FACTORS_FILE
from encoders.towers.towers import TOWERS_FILE
from ranking.bundle.bundle import ITEM_VECTORS, TEXT_ENCODER, TEXT_VECTORS
from ranking.bundle.host_memory import NoRoomError
from ranking.scoring.ranker import RANKER_FILE

WORKING_BYTES: Final = 2**31
"""Memory of a process beside a bundle's arrays: kernels, activations of the encoder, scores of searches, and
vectors of added items."""
_GB: Final = 1e9


def bytes_needed(folder: Path) -> int:
    """Return an upper estimate of the bytes that a version takes on a GPU.

    Indexes hold copies in half and in single precision of the vectors: of items, texts, factors (half of
    their file), and affinity, as wide as the texts.

    Args:
        folder: of the version; missing files count as empty.

    """
    vectors = _size(folder / ITEM_VECTORS) + 2 * _size(folder / TEXT_VECTORS)
    copies = (vectors + _size(folder / FACTORS_FILE) // 2) * 3 // 2
    return _least_needed(folder) + copies


def _least_needed(folder: Path) -> int:
    """Return an estimate of the bytes on the GPU if a CPU searches: the weights, as large as their files."""
    weights = [folder / TOWERS_FILE, folder / RANKER_FILE, *(folder / TEXT_ENCODER).glob("*.safetensors")]
    return sum(map(_size, weights)) + WORKING_BYTES


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


@contextmanager
def device_memory_guard(folder: Path, device: torch.device, beside: bool = False) -> Iterator[None]:
    """Check that a version fits on a device before the block loads it there; nothing on a CPU.

    Vectors of the only model may not fit, as a CPU can search them. A model that replaces another must fit
    entirely, or every model update would make searches slower.

    Initialises CUDA in the calling thread.

    Args:
        folder: of the version.
        device: target device.
        beside: whether the replaced model is still on the device.

    Raises:
        NoRoomError: too little free memory, before or inside the block.
        InputError: an unusable GPU.

    """
    if device.type != "cuda":
        yield
        return
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError as error:
        line = str(error).strip().splitlines()[0]
        raise InputError(
            f"device={device} cannot be used ({line}); nvidia-smi shows who uses it; "
            "free it, or set device=cpu"
        ) from error
    name, needed = describe_device(device), bytes_needed(folder) if beside else _least_needed(folder)
    advice = (
        "a restart of the server changes over with one model at a time"
        if beside
        else "nvidia-smi shows what uses it; make room, or set device=cpu"
    )
    there = f"{free / _GB:.1f} of {total / _GB:.1f} are free"
    what = f"{name} has too little memory for model {folder.name}{' beside the one that answers' * beside}"
    if needed > free:
        raise NoRoomError(f"{what}: it takes about {needed / _GB:.1f} GB, {there}; {advice}")
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise NoRoomError(f"{what}: it took more than there was, {there}; {advice}") from error
