"""Cut a dataset at a moment: tables to train on, and the events and new items that are replayed after it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from conf.errors import InputError
from features.data import schema
from features.data.pipeline_step import write_atomically
from features.prepare import DATASET_FOLDER

WEEK: Final = 7 * 86_400
TRAINED_ITEMS: Final = "items.parquet"
TRAINED_EVENTS: Final = "events.parquet"
REPLAYED: Final = "replayed.parquet"
NEW_ITEMS: Final = "new_items.parquet"
ABOUT: Final = "cut.json"


@dataclass(frozen=True)
class Cut:
    """The two sides of a cut."""

    dataset: str
    """Content hash of the dataset that was cut."""
    weeks: float
    time: int
    """Unix seconds, shifted by `shift`: earlier events are trained on, the rest is replayed."""
    shift: int
    """Seconds that all times were shifted by, whole weeks, so that the last event is less than a week old."""
    trained_events: int
    replayed_events: int
    new_items: int
    text_fields: list[str]
    event_weights: dict[str, float]

    def overrides(self, folder: Path) -> list[str]:
        """Return the settings of `shelfwise run` that train on the part before the cut."""
        weights = ", ".join(f"{kind}: {weight}" for kind, weight in self.event_weights.items())
        return [
            "data=files", f"data.items={folder / TRAINED_ITEMS}", f"data.events={folder / TRAINED_EVENTS}",
            f"data.text_fields=[{','.join(self.text_fields)}]", f"data.event_weights={{{weights}}}",
            "split=global_time", "refit=everything", "evaluation.test=false", "evaluation.baselines=[]",
        ]  # fmt: skip


def make_cut(run: Path, folder: Path, weeks: float) -> Cut:
    """Cut a run's dataset some weeks before its last event; a finished cut is reused.

    Items whose first event is after the cut are removed from the catalogue and upserted when they first sell.
    Items that never sell stay in it.

    Args:
        run: work directory of a finished run.
        folder: gets the tables.
        weeks: length of the replayed part.

    Raises:
        InputError: there is no dataset with times, or one side of the cut is empty.
    """
    source = run / DATASET_FOLDER
    try:
        info = json.loads((source / schema.DATASET_FILE).read_text())
    except OSError:
        raise InputError(f"{source}: no dataset; run `shelfwise prepare` or `shelfwise run` first") from None
    if not info["has_time"]:
        raise InputError(f"{source}: events have no times, so nothing can be replayed")
    kept = _kept(folder)
    if kept is not None and (kept.dataset, kept.weeks) == (info["content_hash"], weeks):
        return kept
    events = pl.read_parquet(source / schema.EVENTS_FILE)
    items = pl.read_parquet(source / schema.ITEMS_FILE).drop(schema.TEXT)
    last = int(events[schema.TIMESTAMP].max())  # type: ignore[arg-type]
    shift = (int(time.time()) - last) // WEEK * WEEK
    moment = last + 1 - int(weeks * WEEK)
    before, after = events.filter(_seconds() < moment), events.filter(_seconds() >= moment)
    if before.is_empty() or after.is_empty():
        raise InputError(f"{source}: {weeks:g} weeks before the last event leave one side without events")
    new = after.join(before, on=schema.ITEM_ID, how="anti")[schema.ITEM_ID].unique()
    is_new = pl.col(schema.ITEM_ID).is_in(new.implode())
    folder.mkdir(parents=True, exist_ok=True)
    items = _moved_items(items, shift)
    items.filter(~is_new).write_parquet(folder / TRAINED_ITEMS)
    items.filter(is_new).write_parquet(folder / NEW_ITEMS)
    moved = (_seconds() + shift).alias(schema.TIMESTAMP)
    before.with_columns(moved).write_parquet(folder / TRAINED_EVENTS)
    played = after.with_columns(moved).sort(schema.TIMESTAMP, maintain_order=True)
    played.select(schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP).write_parquet(
        folder / REPLAYED
    )
    cut = Cut(
        info["content_hash"], weeks, moment + shift, shift, before.height, after.height, len(new),
        info["text_fields"], info["event_weights"],
    )  # fmt: skip
    write_atomically(folder / ABOUT, json.dumps(asdict(cut), indent=2) + "\n")
    return cut


def _seconds() -> pl.Expr:
    return pl.col(schema.TIMESTAMP)


def _moved_items(items: pl.DataFrame, shift: int) -> pl.DataFrame:
    """Shift the times among the attributes like the events."""
    moments = [name for name, kind in items.schema.items() if isinstance(kind, pl.Datetime | pl.Date)]
    return items.with_columns(pl.col(name) + pl.duration(seconds=shift) for name in moments)


def _kept(folder: Path) -> Cut | None:
    """Return a finished cut, or None."""
    try:
        about: dict[str, Any] = json.loads((folder / ABOUT).read_text())
        return Cut(**about)
    except (OSError, ValueError, TypeError):
        return None
