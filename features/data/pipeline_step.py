"""Steps of the pipeline: what each depends on is declared once, and a finished, unchanged one is skipped."""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from importlib.metadata import version
from operator import attrgetter
from pathlib import Path
from typing import Any

from rich.console import Console

from conf.errors import InputError
from conf.schema import PipelineConfig

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


def _link(source: str, target: str) -> None:
    """Give a file a second name, or copy it where the file system cannot."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def link_tree(source: Path, target: Path, *leave_out: str) -> None:
    """Put the files of a folder into another as hard links; steps replace files, they never write into them.

    Args:
        source: a folder of outputs.
        target: may exist.
        leave_out: names that stay behind, beside the marker.
    """
    ignore = shutil.ignore_patterns(_MARKER, *leave_out)
    shutil.copytree(source, target, ignore=ignore, copy_function=_link, dirs_exist_ok=True)


@dataclass(frozen=True)
class StepSpec:
    """The declaration of a step, beside the code that carries it out."""

    name: str
    """Command that carries it out."""
    folder: str
    """Of its outputs, in the work directory."""
    settings: tuple[str, ...]
    """Configuration keys, or sections, that it reads beyond those of the steps before it."""
    after: StepSpec | None = None
    """Step whose outputs, and so whose inputs, are its inputs, too."""
    further: Callable[[PipelineConfig, Any], Any] | None = None
    """Returns what else decides the outputs, as JSON, given the arguments of `inputs`; None for nothing."""

    def inputs(self, config: PipelineConfig, source: Any) -> str:  # noqa: ANN401 - JSON
        """Return the fingerprint of everything that decides the outputs.

        Args:
            config: of the run.
            source: the data that the first step reads: facts of the dataset, or of raw files.
        """
        before = source if self.after is None else self.after.inputs(config, source)
        own = {key: attrgetter(key)(config) for key in self.settings}
        further = None if self.further is None else self.further(config, source)
        if further is not None:
            own["further"] = further
        return fingerprint(self.folder, version("shelfwise"), own, before)

    def step(self, config: PipelineConfig, source: Any) -> Step:  # noqa: ANN401 - JSON
        """Return the step of a run."""
        return Step(Path(config.work_dir) / self.folder, self.inputs(config, source), self.name)


@dataclass(frozen=True)
class Step:
    """A folder of outputs and the fingerprint of the inputs they were made from."""

    folder: Path
    inputs: str
    name: str
    """Command that makes the outputs."""

    def is_current(self) -> bool:
        """Tell whether the folder holds the finished result of the same inputs."""
        try:
            marker = json.loads((self.folder / _MARKER).read_text())
        except (OSError, ValueError):
            return False
        return isinstance(marker, dict) and marker.get("inputs") == self.inputs

    def adopt(self, reuse: Sequence[str]) -> Path | None:
        """Take over the outputs of another work directory that were made from the same inputs.

        Args:
            reuse: work directories, or patterns of them; the first that fits is taken.

        Returns:
            The folder that was taken over, or None.

        """
        for pattern in reuse:
            for other in [pattern] if Path(pattern).is_dir() else sorted(glob.glob(pattern)):
                donor = Step(Path(other) / self.folder.name, self.inputs, self.name)
                if donor.folder.resolve() != self.folder.resolve() and donor.is_current():
                    self.reopen()
                    link_tree(donor.folder, self.folder)
                    self.complete()
                    return donor.folder
        return None

    def finished(self, reuse: Sequence[str], console: Console) -> bool:
        """Tell whether the outputs are there, or in a work directory of `reuse`, and say so."""
        if self.is_current():
            console.print(f"{self.name}: nothing changed, keeping {self.folder}")
            return True
        donor = self.adopt(reuse)
        if donor is not None:
            console.print(f"{self.name}: nothing new to do, taken over from {donor}")
        return donor is not None

    def require(self) -> None:
        """Refuse to build on outputs that are missing, unfinished or made with other settings.

        Raises:
            InputError: naming the command that makes them.

        """
        if not self.is_current():
            raise InputError(
                f"{self.folder}: missing, unfinished or made with other settings; "
                f"run `shelfwise {self.name}` with the same settings first (`shelfwise run` does every step)"
            )

    def reopen(self) -> None:
        """Drop the marker, then what earlier inputs left; until `complete` the outputs cannot be trusted."""
        (self.folder / _MARKER).unlink(missing_ok=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def complete(self) -> None:
        """Mark the outputs as the result of the inputs; written last."""
        write_atomically(self.folder / _MARKER, json.dumps({"inputs": self.inputs}) + "\n")
