"""What can be compared, found by its place: a store, a version, a work directory or a file of predictions."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from conf.errors import InputError
from ranking.bundle.store import CURRENT, MANIFEST, VERSIONS, current_version, versions
from ranking.comparison.window import METRICS_FILE

ARTIFACTS = "artifacts"
DATASET = "dataset"
EVALUATION = "evaluation"
PREDICTIONS_FILE = "predictions.parquet"
KINDS = "a store, STORE@VERSION, the folder of a version, a work directory, or a file of predictions"


class Kind(Enum):
    """Where lists come from."""

    bundle = "bundle"
    """Made now, by the bundle."""
    evaluation = "evaluation"
    """Written by `shelfwise evaluate` in a work directory."""
    file = "file"
    """Written by any system."""


@dataclass(frozen=True)
class Operand:
    """One side of a comparison."""

    text: str
    """As typed."""
    kind: Kind
    path: Path
    """The store of a bundle, the work directory of an evaluation, or the file."""
    version: str = ""
    """Of a bundle."""

    @property
    def work(self) -> Path | None:
        """The work directory that it belongs to, if there is one with a dataset."""
        folder = self.path if self.kind is Kind.evaluation else self.path.resolve().parent
        return folder if self.kind is not Kind.file and (folder / DATASET).is_dir() else None

    @property
    def name(self) -> str:
        """Its name for people: the place, and the version of a bundle."""
        return f"{self.path}@{self.version}" if self.kind is Kind.bundle else str(self.path)


def _is_store(path: Path) -> bool:
    return (path / VERSIONS).is_dir() or (path / CURRENT).is_file()


def _version_like(store: Path, wanted: str) -> str:
    """Return the version with that name, or the only one that contains it."""
    known = versions(store)
    found = [wanted] if wanted in known else [v for v in known if wanted and wanted in v]
    if len(found) != 1:
        reason = f"{len(found)} versions contain" if found else "no version is or contains"
        raise InputError(f"{store}: {reason} '{wanted}' (there are: {', '.join(known) or 'none'})")
    return found[0]


def find_operand(text: str) -> Operand:
    """Return what a path names.

    Raises:
        InputError: nothing that can be compared is there.
    """
    path = Path(text).expanduser()
    if path.is_file():
        return Operand(text, Kind.file, path)
    if not path.exists() and "@" in text:
        place, _, version = text.rpartition("@")
        store = Path(place).expanduser()
        store = store / ARTIFACTS if not _is_store(store) and _is_store(store / ARTIFACTS) else store
        if not _is_store(store):
            raise InputError(f"compare: {text}: {place} is no store; a store has a folder {VERSIONS}")
        return Operand(text, Kind.bundle, store, _version_like(store, version))
    if (path / MANIFEST).is_file() and path.resolve().parent.name == VERSIONS:
        return Operand(text, Kind.bundle, path.resolve().parent.parent, path.resolve().name)
    if _is_store(path):
        return Operand(text, Kind.bundle, path, current_version(path))
    tables = path / EVALUATION
    if (tables / METRICS_FILE).is_file() and (tables / PREDICTIONS_FILE).is_file():
        return Operand(text, Kind.evaluation, path)
    if _is_store(path / ARTIFACTS):
        return Operand(text, Kind.bundle, path / ARTIFACTS, current_version(path / ARTIFACTS))
    if path.is_dir():
        raise InputError(
            f"compare: {text}: neither a bundle nor an evaluation is there; name {KINDS}, "
            "or run `shelfwise evaluate` in it first"
        )
    raise InputError(f"compare: {text}: no such file or folder; name {KINDS}")
