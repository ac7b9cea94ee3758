"""The choice of an index: brute force on a GPU, FAISS on a CPU."""

from __future__ import annotations

import logging
from pathlib import Path

import torch

from conf.schema import IndexConfig
from encoders.device import CPU
from features.data.dataset import FloatArray
from ranking.retrieval.device_index import BYTES, DeviceIndex, fits
from ranking.retrieval.faiss_index import VectorIndex

LOG = logging.getLogger(__name__)
CatalogueIndex = VectorIndex | DeviceIndex
_DEFAULT = IndexConfig()


def build_index(
    vectors: FloatArray, config: IndexConfig = _DEFAULT, device: torch.device = CPU, room: int = 0
) -> CatalogueIndex:
    """Return an index over row-aligned vectors [items, dim].

    Args:
        vectors: of the items.
        config: which index; `factory` always selects FAISS.
        device: where to search.
        room: how many items may be added on a GPU.

    Raises:
        InputError: when `index.factory` is not a description FAISS understands.

    """
    found = None if config.factory else device_index(vectors, device, room)
    return VectorIndex.build(vectors, config, device) if found is None else found


def load_index(
    path: Path, vectors: FloatArray, config: IndexConfig = _DEFAULT, device: torch.device = CPU, room: int = 0
) -> CatalogueIndex:
    """Return an index read from a file, or a new one on a GPU; see `build_index`.

    Raises:
        InputError: when the file is not an index.

    """
    found = None if config.factory else device_index(vectors, device, room)
    return VectorIndex.load(path, vectors, config, device) if found is None else found


def device_index(vectors: FloatArray, device: torch.device, room: int = 0) -> DeviceIndex | None:
    """Return an index on a GPU; None where the device is no GPU or has too little free memory."""
    if device.type != "cuda":
        return None
    rows, width = len(vectors) + room, vectors.shape[1]
    if fits(rows, width, device):
        return DeviceIndex(vectors, device, room)
    LOG.warning(
        "%d vectors of width %d are searched on the CPU: %s has no %.1f GB free for them",
        rows, width, device, BYTES * rows * width / 1e9,
    )  # fmt: skip
    return None
