"""What `ingest_events` asks of an engine: the rules are its own, the engine only filters, counts and sorts.

polars computes on one machine (`polars_engine`), Spark on many (`features.spark`). An engine decides nothing
about a row, so that both make the same dataset of the same files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import polars as pl

from conf.tables import FilterConfig
from features.data import schema
from features.files.readers import RawTable
from features.ingest.engines.rules import EventRules
from features.ingest.event_filters import Recorded

TYPES: dict[str, type[pl.DataType]] = {
    schema.USER_ID: pl.String,
    schema.ITEM_ID: pl.String,
    schema.EVENT: pl.String,
    schema.TIMESTAMP: pl.Int64,
    schema.ORDER: pl.Int64,
}
"""Columns that every events file has, in their order."""


@dataclass(frozen=True)
class Facts:
    """What is counted of the events that are written, before they are sorted."""

    events: int
    no_time: int
    """Events without a timestamp."""
    no_order: int
    """Events without an order."""
    time_range: tuple[int, int] | None
    """First and last Unix second; None without any timestamp."""
    negative_quantities: int

    @property
    def has_time(self) -> bool:
        """Whether any event has a timestamp."""
        return self.no_time < self.events

    @property
    def has_order(self) -> bool:
        """Whether any event has an order."""
        return self.no_order < self.events


@dataclass(frozen=True)
class Written:
    """What is counted while events are sorted and written: each user's are together then."""

    raised: int
    """Times before that of an earlier `order`, which were raised to it."""
    users: int
    most: int
    """Events of the user with most of them."""
    busiest: str
    """The first such user by id."""


@dataclass(frozen=True)
class Beyond:
    """Events whose value in a column lies beyond a limit, and the first of them in the order of the files."""

    events: int
    file: str
    row: int
    value: float


class Accepted(Protocol):
    """Accepted events of all files, in their order; a method that returns events leaves these as they are."""

    def with_recorded(self, recorded: Self) -> tuple[Self, Recorded]:
        """Add recorded events that are not among these, after them.

        These are kept, as they may have columns that recorded ones lack. An event id is compared within a
        user, because two users may have the same one. Repetitions within one of the tables are left alone:
        see `filtered`.
        """

    def kind_counts(self) -> dict[str, int]:
        """Return kind -> events, by name."""

    def last_rows(self) -> pl.DataFrame:
        """Return `file` and `last`, the number of the last accepted row of each file."""

    def null_counts(self, columns: Sequence[str]) -> dict[str, int]:
        """Return column -> events without a value."""

    def of_kinds(self, spelled: Mapping[str, str], kinds: Sequence[str]) -> Self:
        """Replace spellings of kinds, and keep the events of some kinds."""

    def filtered(self, config: FilterConfig) -> tuple[Self, dict[str, dict[str, int]]]:
        """Apply the filters as `event_filters.apply_filters` does; return what each removed, too.

        Raises:
            InputError: nothing is left.
        """

    def facts(self) -> Facts:
        """Return the counts of these events."""

    def beyond(self, column: str, limit: int, above: bool) -> Beyond | None:
        """Return the events with a value above (else below) a limit; None if there is none."""

    def busiest_minute(self, step: int) -> tuple[int | None, int, int]:
        """Return the minute that most events share, their number, and the number of events looked at.

        Looked at are rows 1, 1 + step, 1 + 2 step, ... of each file.
        """

    def write(self, facts: Facts, target: Path) -> Written:
        """Write the sorted events to one Parquet file.

        Sorted by user, then by order or time: a user whose events all have an `order` by it, one with all
        timestamps by those, a mixture by `order`, rows without one last. Ties keep the order of the files,
        and that of a list's values in one row. Where there are times and orders, a missing time is that of
        the user's event before, else of the one after, else the first of all; and a time before that of an
        earlier event is raised to it. Without orders every event has a time; without times it is 0.
        """


@dataclass(frozen=True)
class Staged:
    """A table after its rows were judged one by one."""

    accepted: Accepted
    rejected: pl.DataFrame
    """Rows of rejects.parquet, in the order of the files."""
    counted: dict[str, Any]
    """`JudgedEvents.tallies` of the accepted rows, by name."""


class EventEngine(Protocol):
    """Judges the rows of tables."""

    def stage(self, table: RawTable, rules: EventRules) -> Staged:
        """Judge every row of a table.

        Raises:
            InputError: a file cannot be read.
        """
