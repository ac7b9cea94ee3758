"""Users' newest events as a file beside the store, from which a server's user state is imported."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from features.data import schema
from features.data.dataset import Events
from features.data.prefixes import user_blocks
from features.files.file_replacement import file_replacement, remove_leftovers
from ranking.bundle.bundle import HISTORIES

HISTORY_EVENTS: Final = 500
"""Newest events per user in the initial user state of a server."""
BLOCK: Final = 1 << 20
"""Events read and written at a time."""


def write_histories(store: Path, dataset_folder: Path, events: Events, block: int = BLOCK) -> None:
    """Write every user's newest events for serving, in blocks of users, replacing the file atomically.

    `order` is the position among the user's events: the dataset is sorted, but its own `order` may be empty.

    Args:
        store: the artifact store.
        dataset_folder: holds the events as a table.
        events: the same events as arrays.
        block: events of a block; of a user with more only the newest are read.
    """
    target = store / HISTORIES
    remove_leftovers(target)
    with file_replacement(target) as temporary:  # user ids stay in no other file
        _write(temporary, pl.scan_parquet(dataset_folder / schema.EVENTS_FILE), events, block)
        temporary.replace(target)


def _write(target: Path, table: pl.LazyFrame, events: Events, block: int) -> None:
    columns = [schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP]
    old, offsets = pl.CompatLevel.oldest(), events.offsets  # strings that every reader of Arrow knows
    empty = table.select(*columns, pl.lit(0, pl.Int64).alias(schema.ORDER)).clear().collect()
    names = empty.to_arrow(compat_level=old).schema
    with pq.ParquetWriter(target, names, compression="zstd") as writer:
        for first, last in user_blocks(offsets, block):
            begin = (
                offsets[first] if last > first + 1 else max(offsets[first], offsets[last] - HISTORY_EVENTS)
            )
            own = np.arange(begin, offsets[last])
            users = events.user[own]
            newest = own >= offsets[users + 1] - HISTORY_EVENTS
            rows = table.select(columns).slice(int(own[0]), len(own)).collect().filter(pl.Series(newest))
            place = pl.Series(schema.ORDER, (own - offsets[users])[newest], dtype=pl.Int64)
            writer.write_table(rows.with_columns(place).to_arrow(compat_level=old))
