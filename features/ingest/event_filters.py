"""Filters on events: duplicates, users with too many events, k-core, and events that two sources have."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from conf.errors import InputError
from conf.schema import FilterConfig
from features.data import schema
from features.files.readers import FILE
from features.ingest.event_readings import kind_keys

_EVENT_ID = "event_id"
Codes = npt.NDArray[np.uint32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FilterResult:
    """The remaining events, and the counts that each filter removed."""

    keep: pl.Series
    """Positions of the remaining events, ascending, [kept] UInt32."""
    counts: dict[str, dict[str, int]]
    """Filter -> `{events, users, items}` that it removed."""


def kcore_mask(users: Codes, items: Codes, k: int) -> Mask:
    """Mark the events of the k-core: the largest set where every user and every item has at least k events.

    Args:
        users: user of each event, [events].
        items: item of each event, [events].
        k: fewest events.
    """
    keep = np.ones(len(users), dtype=np.bool_)
    while True:
        positions = np.flatnonzero(keep)
        if not len(positions):
            return keep
        rich_users = np.bincount(users[positions]) >= k
        rich_items = np.bincount(items[positions]) >= k
        stays = rich_users[users[positions]] & rich_items[items[positions]]
        if stays.all():
            return keep
        keep[positions[~stays]] = False


def _removed(users: Codes, items: Codes, before: Mask, after: Mask) -> dict[str, int]:
    def distinct(codes: Codes, mask: Mask) -> int:
        return len(np.unique(codes[mask]))

    return {
        "events": int(before.sum() - after.sum()),
        "users": distinct(users, before) - distinct(users, after),
        "items": distinct(items, before) - distinct(items, after),
    }


def nothing_left(name: str, config: FilterConfig, total: int) -> InputError:
    """Return the error on a filter that removes every one of `total` events."""
    return InputError(f"data.filters.{name}={getattr(config, name)} leaves no event of {total:,}")


def apply_filters(events: pl.DataFrame, config: FilterConfig) -> FilterResult:
    """Apply the configured filters in order: duplicates, `max_user_events`, k-core.

    Two events are duplicates when user, item, kind and time are equal; without a time, their order instead.

    Args:
        events: user_id, item_id, event, timestamp and order of every event, in the order of the files.
        config: which filters to run.

    Raises:
        InputError: nothing is left.
    """
    users = events[schema.USER_ID].rank("dense").to_numpy().astype(np.uint32)
    items = events[schema.ITEM_ID].rank("dense").to_numpy().astype(np.uint32)
    keep = np.ones(len(users), dtype=np.bool_)
    counts: dict[str, dict[str, int]] = {}

    def narrow(name: str, mask: Mask) -> None:
        nonlocal keep
        counts[name] = _removed(users, items, keep, mask)
        if not mask.any():
            raise nothing_left(name, config, len(users))
        keep = mask

    if config.deduplicate:
        when = pl.when(pl.col(schema.TIMESTAMP).is_null()).then(schema.ORDER)
        same = events.select(
            schema.USER_ID, schema.ITEM_ID, schema.EVENT, schema.TIMESTAMP, when.alias("order")
        )
        narrow("deduplicate", same.select(pl.struct(pl.all()).is_first_distinct()).to_series().to_numpy())
    if config.max_user_events:
        few = np.bincount(users[keep], minlength=int(users.max()) + 1) <= config.max_user_events
        narrow("max_user_events", keep & few[users])
    if config.kcore:
        positions = np.flatnonzero(keep)
        mask = np.zeros(len(users), dtype=np.bool_)
        mask[positions[kcore_mask(users[positions], items[positions], config.kcore)]] = True
        narrow("kcore", mask)
    return FilterResult(pl.Series("at", np.flatnonzero(keep), dtype=pl.UInt32), counts)


@dataclass(frozen=True)
class Recorded:
    """Counts of the events that servers recorded, beside the shop's own."""

    rows: int
    """Usable recorded events."""
    same_id: int
    """Of these, those whose event id the same user has in the shop's own events."""
    same_content: int
    """Further ones with the user, item, kind (but for case and separators) and second of one of the shop's
    own events."""


def add_recorded(own: Path, recorded: Path, target: Path) -> Recorded:
    """Write a table of the shop's own events and of those recorded events that are not among them.

    The own ones are kept, as they may have columns that recorded ones lack. An event id is compared within a
    user, because two users may have the same one. Repetitions within one of the tables are left alone: see
    `apply_filters`.

    Args:
        own: Parquet file of typed events.
        recorded: Parquet file of typed events; columns may differ.
        target: the file to write, own events first.
    """
    mine, theirs = pl.scan_parquet(own), pl.scan_parquet(recorded)
    columns = (schema.USER_ID, schema.ITEM_ID, schema.TIMESTAMP)
    content = [*map(pl.col, columns), kind_keys(pl.col(schema.EVENT))]
    total = _rows(theirs)
    rest = theirs
    if _EVENT_ID in mine.collect_schema() and _EVENT_ID in theirs.collect_schema():
        key = [schema.USER_ID, _EVENT_ID]
        rest = rest.join(mine.select(key).drop_nulls(), on=key, how="anti", maintain_order="left")
    without_ids = _rows(rest)
    rest = rest.join(mine, on=content, how="anti", maintain_order="left")
    left = _rows(rest)
    files = [frame.collect_schema()[FILE] for frame in (mine, theirs)]
    named = [name for dtype in files if isinstance(dtype, pl.Enum) for name in dtype.categories]
    dtype = pl.Enum(list(dict.fromkeys(named))) if all(isinstance(t, pl.Enum) for t in files) else pl.String()
    parts = [frame.with_columns(pl.col(FILE).cast(pl.String).cast(dtype)) for frame in (mine, rest)]
    pl.concat(parts, how="diagonal_relaxed").sink_parquet(target, engine="streaming")
    return Recorded(total, total - without_ids, without_ids - left)


def _rows(frame: pl.LazyFrame) -> int:
    return int(frame.select(pl.len()).collect(engine="streaming").item())
