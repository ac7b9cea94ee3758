"""Skipping work that is already done: a stage is current when its inputs have not changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
from enum import Enum
from pathlib import Path
from typing import Any

from conf.errors import InputError

_MARKER = "stage.json"


def plain(value: Any) -> Any:  # noqa: ANN401 - any config value
    """Turn config dataclasses and enums into JSON types."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def fingerprint(*inputs: Any) -> str:  # noqa: ANN401 - any config value
    """Return a hash of configs and upstream fingerprints."""
    text = json.dumps([plain(i) for i in inputs], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_atomically(path: Path, text: str) -> None:
    """Replace a small file so that a reader sees the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("w") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)


class Stage:
    """A folder of outputs and the fingerprint of the inputs they were made from."""

    def __init__(self, folder: Path, inputs: str) -> None:
        """Name a stage's folder and the fingerprint of what it is made from."""
        self.folder = folder
        self.inputs = inputs

    def is_current(self) -> bool:
        """Tell whether the folder holds the finished result of the same inputs."""
        try:
            marker = json.loads((self.folder / _MARKER).read_text())
        except (OSError, ValueError):
            return False
        return isinstance(marker, dict) and marker.get("inputs") == self.inputs

    def require(self, command: str) -> None:
        """Refuse to build on outputs that are missing, unfinished or made with other settings.

        Raises:
            InputError: naming the command that makes them.

        """
        if not self.is_current():
            raise InputError(
                f"{self.folder}: missing, unfinished or made with other settings; "
                f"run `shelfwise {command}` with the same settings first (`shelfwise run` does every step)"
            )

    def reopen(self) -> None:
        """Drop the marker, then what earlier inputs left; until `complete` the outputs cannot be trusted."""
        (self.folder / _MARKER).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def complete(self) -> None:
        """Mark the outputs as the result of the inputs; written last."""
        write_atomically(self.folder / _MARKER, json.dumps({"inputs": self.inputs}) + "\n")
