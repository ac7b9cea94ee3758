"""What is wrong with a catalogue's data: items without text or events, rows that were rejected."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from explorer.problems import PageError
from features.data import schema
from features.data.dataset import Catalogue, FloatArray, IntArray

SHOWN_ROWS = 200
"""Rejected rows on a page."""


@dataclass(frozen=True)
class Reason:
    """Rows of one table that were rejected for one reason."""

    table: str
    reason: str
    rows: int


@dataclass(frozen=True)
class Rejected:
    """What `prepare` left out or doubted, and why."""

    reasons: tuple[Reason, ...]
    """Most frequent first."""
    examples: tuple[dict[str, Any], ...]
    """Rejected rows: table, file, row, reason and ids, without users."""
    filtered: tuple[tuple[str, int], ...]
    """Rows that an adapter or a filter dropped on purpose, by reason."""
    notes: tuple[str, ...]
    """What looked suspicious, in the words of `prepare`."""
    duplicates: int
    """Rows of items whose id an earlier row had."""


def without_text(catalogue: Catalogue) -> IntArray:
    """Return the rows of items whose text is empty."""
    return np.array([row for row, text in enumerate(catalogue.texts) if not text.strip()], dtype=np.int32)


def without_events(counts: FloatArray) -> IntArray:
    """Return the rows of items without any event, [items] -> rows."""
    return np.flatnonzero(counts == 0).astype(np.int32)


def rejected_rows(dataset: Path, reason: str = "", limit: int = SHOWN_ROWS) -> Rejected | None:
    """Return what `prepare` rejected; None where its output is not there.

    Args:
        dataset: folder of its output.
        reason: of the rows to list; empty lists rows of every reason.
        limit: rows that are listed.

    Raises:
        PageError: the files are damaged.

    """
    file, facts = dataset / schema.REJECTS_FILE, dataset / schema.DATASET_FILE
    if not file.is_file() or not facts.is_file():
        return None
    try:
        info: dict[str, Any] = json.loads(facts.read_text())
        frame = pl.read_parquet(file)
    except (OSError, ValueError, pl.exceptions.PolarsError) as error:
        raise PageError(500, "The prepared data cannot be read", f"{dataset}: {error}") from error
    counts = (
        frame.group_by("table", "reason")
        .len("rows")
        .sort(["rows", "table", "reason"], descending=[True, False, False])
    )
    chosen = frame if not reason else frame.filter(pl.col("reason") == reason)
    shown = chosen.head(limit).drop(schema.USER_ID)  # the id of a person has no place here
    numbers = [(str(name), int(n)) for name, n in info.get("adapter_dropped", {}).items() if n]
    for name, counted in info.get("filters", {}).items():
        numbers += [(f"{name}: {part}", int(n)) for part, n in counted.items() if n]
    return Rejected(
        tuple(Reason(table, why, int(rows)) for table, why, rows in counts.iter_rows()),
        tuple(shown.iter_rows(named=True)),
        tuple(sorted(numbers, key=lambda pair: -pair[1])),
        tuple(str(note) for note in info.get("suspicious", [])),
        sum(int(n) for n in info.get("duplicate_items", {}).values()),
    )
