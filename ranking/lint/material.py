"""What the checks read: the prepared dataset, its split, and the optional columns of its events."""

from __future__ import annotations

import time as clock
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from conf.schema import PipelineConfig, SplitKind
from features.data import schema
from features.data.dataset import BoolArray, Dataset, Events, IntArray, LongArray
from features.data.prefixes import drawn_users
from features.data.splits import Split, exclude_seen, make_split
from features.ingest.privacy import Pseudonyms, make_pseudonyms

MOST_EVENTS: Final = 10_000_000
"""Events that are checked at most; of more those of drawn users."""
_SHOWN_CHARS = 60
_BLOCK = 1 << 22
"""Rows of the optional columns read at a time."""


@dataclass(frozen=True)
class Material:
    """A dataset under one protocol."""

    dataset: Dataset
    split: Split
    config: PipelineConfig
    columns: pl.DataFrame
    """Optional columns of the events (`session_id`, `event_id`, `value`, ...), in the order of the events."""
    now: int
    """Unix seconds of the present."""
    pseudonyms: Pseudonyms | None = None
    """Applied to user ids in examples, where they are not pseudonyms in the dataset already."""

    @classmethod
    def of(
        cls, dataset: Dataset, split: Split, config: PipelineConfig, columns: pl.DataFrame | None = None
    ) -> Material:
        """Return the material of a dataset; `columns` is None where events have only the required ones."""
        hashed = bool(dataset.info.get("user_ids_hashed"))
        return cls(
            dataset,
            split,
            config,
            pl.DataFrame() if columns is None else columns,
            int(clock.time()),
            None if hashed else make_pseudonyms(config.privacy),
        )

    @property
    def events(self) -> Events:
        """The events of the dataset."""
        return self.dataset.events

    @property
    def items(self) -> int:
        """Number of items."""
        return len(self.dataset.catalogue)

    @property
    def by_time(self) -> bool:
        """Whether all users are cut at the same time."""
        return self.split.kind is SplitKind.global_time

    @cached_property
    def exclude_seen(self) -> bool:
        """Whether lists leave out the history, as the evaluation decides it."""
        return exclude_seen(self.dataset, self.split, self.config.evaluation.exclude_seen)

    @cached_property
    def counted(self) -> BoolArray:
        """Mask of the events that are trained or counted for test queries, [events]."""
        position: LongArray = np.arange(len(self.events), dtype=np.int64)
        counted: BoolArray = position < self.split.state_end[self.events.user]
        return counted

    @cached_property
    def tied(self) -> LongArray:
        """Positions of events whose next event is of the same user at the same time, [ties]."""
        events = self.events
        same = (events.user[1:] == events.user[:-1]) & (events.time[1:] == events.time[:-1])
        return np.flatnonzero(same).astype(np.int64)

    def user(self, row: int) -> str:
        """Return a user id as examples show it."""
        name = self.dataset.user_ids[row]
        return f"user '{name if self.pseudonyms is None else self.pseudonyms.of(name)}'"

    def item(self, row: int) -> str:
        """Return an item id and the beginning of its text, as examples show it."""
        catalogue = self.dataset.catalogue
        text = catalogue.texts[row]
        short = text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"
        return f"item '{catalogue.ids[row]}' ({short})" if short else f"item '{catalogue.ids[row]}'"

    def with_events(self, events: Events, *, same_cuts: bool = True) -> Material:
        """Return the material with other events of the same users and items.

        Args:
            events: sorted by user and then as they happened; users may have none.
            same_cuts: keep the cut times of `global_time`; False finds them anew.
        """
        config = self.config
        if same_cuts and self.by_time:
            test, valid = moment(self.split.state_time), moment(self.split.train_time)
            config = replace(config, split=replace(config.split, test_start=test, valid_start=valid))
        dataset = replace(self.dataset, events=events)
        split_of = make_split(dataset, config.split, config.evaluation.target_events)
        return replace(self, dataset=dataset, split=split_of, columns=pl.DataFrame())

    def keeping(self, keep: BoolArray, *, same_cuts: bool = True) -> Material:
        """Return the material with some of the events, `keep` [events]; users keep their rows."""
        return self.with_events(kept_events(self.events, keep), same_cuts=same_cuts)


def kept_events(events: Events, keep: BoolArray) -> Events:
    """Return the events of a mask, [events]; users without any keep an empty slice."""
    sizes = np.bincount(events.user[keep], minlength=events.users)
    return Events(
        events.user[keep],
        events.item[keep],
        events.kind[keep],
        events.time[keep],
        np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
    )


def moment(seconds: int) -> str:
    """Return Unix seconds as an ISO time in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def day(seconds: int) -> str:
    """Return Unix seconds as an ISO date in UTC."""
    return moment(seconds)[:10]


def share(count: float, total: float) -> str:
    """Return a share in percent, with a digit behind the point below 10 %."""
    part = count / max(total, 1)
    return f"{part:.0%}" if part >= 0.1 or part == 0 else f"{part:.1%}" if part >= 0.001 else "below .1%"


def read_columns(folder: Path, keep: BoolArray | None = None) -> pl.DataFrame:
    """Read the optional event columns of a dataset, in the order of its events.

    Args:
        folder: of the dataset.
        keep: mask of the rows to read, [events]; None reads all.
    """
    scan = pl.scan_parquet(folder / schema.EVENTS_FILE)
    names = [c for c in scan.collect_schema() if c in schema.OPTIONAL_EVENT_COLUMNS]
    if not names:
        return pl.DataFrame()
    scan = scan.select(names)
    if keep is None:
        return scan.collect()
    parts = (
        scan.slice(start, _BLOCK).collect().filter(keep[start : start + _BLOCK])
        for start in range(0, len(keep), _BLOCK)
    )
    return pl.concat(parts)


def material_of(
    dataset: Dataset, split: Split, config: PipelineConfig, folder: Path, most: int = MOST_EVENTS
) -> Material:
    """Return what is checked of a dataset: all of it, or the events of drawn users under the same cuts.

    The checks hold a few arrays with a number for each event, so a sample bounds their memory. An account
    with more than `most` events is never in it.

    Args:
        dataset: to be checked.
        split: of the dataset.
        config: settings of the run.
        folder: of the dataset, for the optional columns.
        most: events at most.
    """
    sizes = dataset.events.lengths()
    users = drawn_users(sizes, most, config.seed)
    whole = Material.of(dataset, split, config)
    if len(users) == len(sizes):
        return replace(whole, columns=read_columns(folder))
    chosen = np.zeros(len(sizes), dtype=np.bool_)
    chosen[users] = True
    keep: BoolArray = np.repeat(chosen, sizes)
    return replace(whole.keeping(keep), columns=read_columns(folder, keep))


def first_sales(material: Material) -> LongArray:
    """Return the time of each item's first event, [items]; the largest integer without any."""
    first = np.full(material.items, np.iinfo(np.int64).max)
    np.minimum.at(first, material.events.item, material.events.time)
    return first


def strings(values: Sequence[str], most: int = 3) -> str:
    """Return the first of some values in quotes, separated by commas."""
    return ", ".join(f"'{value}'" for value in values[:most])


def counts_before(material: Material) -> LongArray:
    """Return the events per item that are counted for test queries, [items]."""
    rows: IntArray = material.events.item[material.counted]
    return np.bincount(rows, minlength=material.items).astype(np.int64)


def cut_of(material: Material) -> int:
    """Return the time of the cut; of leave-one-out the median time of the test queries."""
    if material.by_time or not len(material.split.test):
        return material.split.state_time
    return int(np.median(material.split.test.time))


def many(count: int, one: str, several: str) -> str:
    """Return a number with the words that agree with it."""
    return f"{count:,} {one if count == 1 else several}"
