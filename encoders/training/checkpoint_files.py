"""Checkpoints written straight to their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO


class StreamedCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint tensor by tensor, replaces the former file atomically, and maps one that it reads.

    Lightning's own class makes the whole file in memory, twice: of a million items, whose weights, averages
    and moments of the optimiser take 2 GB at a width of 128, that is 4 GB. It also reads the whole file into
    the memory of every process; mapped, the processes of a machine share one copy in the page cache.
    """

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any = None,  # noqa: ANN401 - Lightning's interface
    ) -> None:
        """Write a checkpoint to a local file."""
        file = Path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{file.name}.tmp")  # one name: what a kill leaves is written over
        try:
            torch.save(checkpoint, unfinished)
            unfinished.replace(file)
        finally:
            unfinished.unlink(missing_ok=True)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Any = "cpu",  # noqa: ANN401 - Lightning's interface
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Map a checkpoint in a local file, copy-on-write: what changes a tensor leaves the file alone.

        A checkpoint that replaces the file meanwhile is another file, so that the mapped one stays as it is.
        """
        found: dict[str, Any] = torch.load(
            Path(path), map_location=map_location, weights_only=weights_only, mmap=True
        )
        return found
