"""Checkpoints written straight to their files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO


class StreamedCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint tensor by tensor, and replaces the former file atomically.

    Lightning's own class makes the whole file in memory, twice: of a million items, whose weights, averages
    and moments of the optimiser take 2 GB at a width of 128, that is 4 GB.
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
