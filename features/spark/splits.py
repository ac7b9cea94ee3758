"""Parts of a table's files for different workers: ranges of rows of Parquet files, other files as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import polars as pl
import pyarrow.parquet as pq

from features.files.containers import file_of
from features.files.copies import is_url, local, rows_of
from features.files.readers import FILE, RawTable, TextOptions, readable, scan_table
from features.ingest.raw_tables import EventShape

ROWS = 1_000_000
"""Rows of a Parquet file that one task reads."""
_BATCH = 100_000
"""Rows that a worker judges at a time."""
_PARQUET = (".parquet", ".pq")


@dataclass(frozen=True)
class Split:
    """A part of one file."""

    name: str
    """As given, which rows and messages have."""
    path: str
    """The same file from the root on: workers run in folders of their own."""
    first: int = 0
    """Its first row, from 0."""
    rows: int | None = None
    """None reads to the end."""
    staged: bool = False
    """Whether it is staged Parquet, whose rows have the names of their files."""


@dataclass(frozen=True)
class Reading:
    """How the files of a table are read, the same in every process."""

    setting: str
    """Name of the setting in messages."""
    types: dict[str, pl.DataType]
    """Columns of all files together, with the bookkeeping ones."""
    options: TextOptions = field(default_factory=TextOptions)
    shape: EventShape | None = None
    """Makes the rows into events; None where they are."""

    def tables(self, split: Split) -> Iterator[RawTable]:
        """Yield the events of a part of a file, batch by batch in the order of its rows.

        Raises:
            InputError: the file cannot be read.
        """
        name = f"{self.setting} ({split.name})"
        with readable(name):
            if split.staged:
                frame = pl.scan_parquet(split.path, hive_partitioning=False)
                frame = frame.with_columns(pl.col(FILE).cast(self.types[FILE]))
            else:
                frame = scan_table([split.path], self.setting, self.options).frame
                frame = frame.with_columns(pl.lit(split.name).cast(self.types[FILE]).alias(FILE))
            frame = frame.slice(split.first, split.rows)
            # A file may lack columns, and its types may be narrower than those of all files together.
            same = pl.concat([pl.LazyFrame(schema=self.types), frame], how="diagonal_relaxed")
            for batch in same.collect_batches(chunk_size=_BATCH, maintain_order=True):
                raw = RawTable(batch.lazy(), False, name)
                yield raw if self.shape is None else self.shape.rows(raw)


def splits_of(paths: Sequence[str]) -> list[Split]:
    """Return the parts of files, in their order."""
    found: list[Split] = []
    for name in paths:
        if (copy := rows_of(name)) is not None:
            found += staged_splits(name, copy.parts)
            continue
        path = os.path.abspath(local(name))
        if is_url(name) or not name.lower().endswith(_PARQUET) or str(file_of(name)) != name:
            found.append(Split(name, path))
            continue
        with readable(name):
            rows = pq.read_metadata(path).num_rows
        found += [Split(name, path, first, ROWS) for first in range(0, rows, ROWS)]
    return found


def staged_splits(name: str, paths: Sequence[str]) -> list[Split]:
    """Return the parts of staged Parquet files of a table."""
    rows = {path: pq.read_metadata(path).num_rows for path in paths}
    return [
        Split(name, path, first, ROWS, staged=True)
        for path, count in rows.items()
        for first in range(0, count, ROWS)
    ]
