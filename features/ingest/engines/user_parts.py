"""A sort of more events than fit into memory: divided by ranges of user ids, and sorted part by part.

A merge sort would read as much; with whole users in a part, everything that is computed within a user, such
as a missing time, needs one part in memory at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from features.data import schema

PART: Final = 4_000_000
"""Events of a part, about; sorting one takes some 200 bytes an event."""
_SAMPLE: Final = 200_000
"""Events whose user ids set the limits of the parts."""
_BUCKET: Final = "__part"


def user_limits(events: pl.LazyFrame, place: str, total: int, part: int) -> pl.Series:
    """Return the ids that divide the users into ranges of about `part` events, [parts - 1], ascending.

    Args:
        events: the events.
        place: column with the number of each row.
        total: number of events.
        part: events of a part.
    """
    parts = -(-total // part)
    step = max(total // _SAMPLE, 1)
    # By a hash: rows of one kind, such as every second one, may be left out of the events.
    sampled = events.filter(pl.col(place).hash() % step == 0).select(schema.USER_ID)
    users = sampled.collect(engine="streaming").to_series().sort()
    chosen = [len(users) * number // parts for number in range(1, parts)]
    return users.gather(chosen).unique().sort()


def user_parts(events: pl.LazyFrame, limits: pl.Series, folder: Path) -> Iterator[pl.LazyFrame]:
    """Yield the events in ranges of users, in the order of their ids; each part is deleted after its use.

    Args:
        events: the events; their order within a part is left open.
        limits: as of `user_limits`; the first user of each part but the first.
        folder: is made for the parts, of which some may be empty and do not come.
    """

    def bucket(users: pl.Series) -> pl.Series:
        return limits.search_sorted(users, side="right").cast(pl.UInt32)

    users = pl.col(schema.USER_ID)
    numbers = users.map_batches(bucket, return_dtype=pl.UInt32, is_elementwise=True).alias(_BUCKET)
    target = pl.PartitionBy(folder, key=numbers, include_key=False, approximate_bytes_per_file=None)
    events.sink_parquet(target, mkdir=True, maintain_order=False, engine="streaming", compression="lz4")
    for number in range(len(limits) + 1):
        files = sorted((folder / f"{_BUCKET}={number}").glob("*.parquet"))
        if files:
            yield pl.scan_parquet(files, hive_partitioning=False)
            for file in files:
                file.unlink()
