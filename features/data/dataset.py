"""The prepared dataset: string ids at the boundary, dense rows inside, events mapped from files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from conf.errors import InputError
from features.data import schema
from features.data.event_arrays import UserIds, open_event_arrays

IntArray = npt.NDArray[np.int32]
LongArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
BoolArray = npt.NDArray[np.bool_]

_FACTS = (
    "content_hash", "event_weights", "text_fields", "text_fallback_fields", "max_text_chars", "has_order",
)  # fmt: skip


class Catalogue:
    """Items in row order: ids, texts and attribute columns.

    Row `r` of every item-aligned array (vectors, popularity, masks) is item `ids[r]`.
    """

    def __init__(self, frame: pl.DataFrame) -> None:
        """Wrap an items table; it needs `item_id` and the rendered `text`."""
        self.frame = frame
        self.ids: list[str] = frame[schema.ITEM_ID].to_list()
        self.texts: list[str] = frame[schema.TEXT].to_list()
        self._rows = {item_id: row for row, item_id in enumerate(self.ids)}

    def __len__(self) -> int:
        return len(self.ids)

    def row(self, item_id: str) -> int | None:
        """Return the dense row of an item id, or None when it is unknown."""
        return self._rows.get(item_id)

    def find(self, item_ids: Iterable[str]) -> list[int | None]:
        """Return the dense row of each item id, None for unknown ones."""
        return list(map(self._rows.get, item_ids))

    def rows(self, item_ids: list[str]) -> IntArray:
        """Return the rows of the known ids, in order; unknown ones are skipped."""
        return np.array([self._rows[i] for i in item_ids if i in self._rows], dtype=np.int32)

    @property
    def attributes(self) -> list[str]:
        """Names of the columns that filters and ranking features may use."""
        return [c for c in self.frame.columns if c not in (schema.ITEM_ID, schema.TEXT)]


@dataclass(frozen=True)
class Events:
    """Events sorted by user and, within a user, by order; users are contiguous slices."""

    user: IntArray  # [events]
    item: IntArray  # [events]
    kind: npt.NDArray[np.int8]  # [events] position in Dataset.kinds
    time: LongArray  # [events] Unix seconds, non-decreasing within a user; all 0 without timestamps
    offsets: LongArray  # [users + 1] slice of each user

    def __len__(self) -> int:
        return len(self.user)

    @property
    def users(self) -> int:
        """Number of users."""
        return len(self.offsets) - 1

    def lengths(self) -> LongArray:
        """Events per user, [users]."""
        return np.diff(self.offsets)


@dataclass(frozen=True)
class Dataset:
    """The output of `prepare`."""

    catalogue: Catalogue
    events: Events
    user_ids: Sequence[str]
    """In row order; of a dataset on disk `UserIds`, which are mapped."""
    kinds: list[str]
    """Event kinds, strongest weight first; `Events.kind` indexes this list."""
    kind_weights: FloatArray
    has_time: bool
    info: dict[str, Any]
    """The content of dataset.json."""

    @property
    def user_series(self) -> pl.Series:
        """The ids of the users in row order, without a copy where they are mapped."""
        if isinstance(self.user_ids, UserIds):
            return self.user_ids.series
        return pl.Series(schema.USER_ID, self.user_ids, dtype=pl.String)

    @property
    def facts(self) -> dict[str, Any]:
        """What the outputs of later steps depend on: the dataset's content and settings."""
        return {fact: self.info[fact] for fact in _FACTS}


def load_dataset(folder: Path) -> Dataset:
    """Open a dataset directory written by `prepare`; events are mapped, not read.

    Raises:
        InputError: when the folder holds no complete dataset, or is replaced meanwhile.

    """
    manifest = folder / schema.DATASET_FILE
    if not manifest.is_file():
        raise InputError(f"{folder}: no {schema.DATASET_FILE} here; run `shelfwise prepare` first")
    content = _content(manifest)
    try:
        dataset = _read(folder, json.loads(content))
    except (OSError, ValueError, InputError):
        if _content(manifest) == content:
            raise
        dataset = None
    if dataset is None or _content(manifest) != content:  # tables of one and arrays of the other
        raise InputError(f"{folder}: replaced by another `shelfwise prepare` while it was opened; run again")
    return dataset


def _content(manifest: Path) -> str:
    """Return the text of a file; nothing where there is none, as while its folder is replaced."""
    try:
        return manifest.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""


def _read(folder: Path, info: dict[str, Any]) -> Dataset:
    catalogue = Catalogue(pl.read_parquet(folder / schema.ITEMS_FILE))
    kinds = [str(k) for k in info["kinds"]]
    weights = np.array([float(info["event_weights"][k]) for k in kinds], dtype=np.float32)
    opened = open_event_arrays(folder, info, catalogue.frame[schema.ITEM_ID])
    events = Events(**opened.arrays, offsets=opened.offsets)
    return Dataset(catalogue, events, opened.user_ids, kinds, weights, bool(info["has_time"]), info)
