"""The optional filters on events: duplicates, users with too many events, k-core."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from conf.errors import InputError
from conf.schema import FilterConfig
from features.data import schema

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
            raise InputError(f"data.filters.{name}={getattr(config, name)} leaves no event of {len(users):,}")
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
