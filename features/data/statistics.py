"""Item statistics as of a point in time: popularity, repeats, neighbours, attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
from safetensors.numpy import save_file

from features.data import schema
from features.data.arrays import load_arrays
from features.data.dataset import Catalogue, Dataset, Events, FloatArray, IntArray, LongArray
from features.data.demand import Demand
from features.data.prefixes import drawn_users, prefix_blocks, user_blocks
from features.data.splits import ragged_ranges

if TYPE_CHECKING:
    from scipy import sparse  # imported where statistics are computed: a server only reads them

DAY = 86_400
_PAIRS_BLOCK = 1 << 22
"""Events whose pairs, or entries of a matrix whose rows, are computed at a time."""
PAIRED_EVENTS = 10_000_000
"""Events from which baselines and diagnostics count pairs at most."""
MAX_ATTRIBUTES = 4
MAX_GAP_DAYS = 365.0
RECENT_DAYS = 14.0
"""Days after which an event counts half towards recent popularity."""


@dataclass(frozen=True)
class Neighbours:
    """The strongest neighbours of each item."""

    ids: IntArray  # [items, k] rows, padded with -1
    weights: FloatArray  # [items, k] descending, 0 at padding


@dataclass(frozen=True)
class Statistics:
    """Item statistics as of a time, computed from events before it."""

    now: LongArray  # [1] Unix seconds of the cut
    count: FloatArray  # [items] events
    recent: FloatArray  # [items] events, halved every 14 days
    repeat_rate: FloatArray  # [items] share of buyers who bought it again, smoothed
    gap_days: FloatArray  # [items] typical days between two purchases by the same user
    log_price: FloatArray  # [items] log(1 + price); 0 where unknown
    attributes: IntArray  # [items, attributes] codes, -1 where missing
    follow_ids: IntArray  # [items, k] items that follow
    follow_weights: FloatArray
    together_ids: IntArray  # [items, k] items near it in the same histories
    together_weights: FloatArray
    demand_keys: LongArray  # see features/data/demand.py
    demand_totals: LongArray
    demand_calendar: LongArray
    demand_first: LongArray

    @cached_property
    def demand(self) -> Demand:
        """Events per item and day."""
        return Demand(self.demand_keys, self.demand_totals, self.demand_calendar, self.demand_first)

    def with_demand(self, demand: Demand) -> Statistics:
        """Return the statistics with another demand, cached columns included."""
        statistics = replace(self, demand_first=demand.first)
        statistics.__dict__["demand"] = demand  # value of the cached property
        return statistics

    @property
    def follow(self) -> Neighbours:
        """Items that follow an item within the window."""
        return Neighbours(self.follow_ids, self.follow_weights)

    @property
    def together(self) -> Neighbours:
        """Items within the window of an item, in either order."""
        return Neighbours(self.together_ids, self.together_weights)

    def save(self, path: Path) -> None:
        """Write every array."""
        save_file({f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)}, path)

    @classmethod
    def load(cls, path: Path, room: int = 0) -> Statistics:
        """Read arrays written by `save`, with capacity for `room` more rows."""
        return cls(**load_arrays(path, room))


def strongest(matrix: sparse.csr_matrix, k: int) -> Neighbours:
    """Return the k largest entries of each row of a sparse [items, items] matrix."""
    items = matrix.shape[0]
    sizes = np.diff(matrix.indptr)
    rows = np.repeat(np.arange(items), sizes)
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    rank = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], sizes)
    kept = rank < k
    ids = np.full((items, k), -1, dtype=np.int32)
    weights = np.zeros((items, k), dtype=np.float32)
    ids[rows[kept], rank[kept]] = matrix.indices[order][kept]
    weights[rows[kept], rank[kept]] = matrix.data[order][kept]
    return Neighbours(ids, weights)


def drawn_blocks(events: Events, end: LongArray, most: int, seed: int = 0) -> Iterator[LongArray]:
    """Yield the positions before `end` of drawn users, about 4 million at a time, whole users in each.

    Args:
        events: all events.
        end: position after each user's prefix, [users].
        most: events at most, as of `drawn_users`.
        seed: of the draw.
    """
    sizes = np.maximum(end - events.offsets[:-1], 0)
    users = drawn_users(sizes, most, seed)
    begin, sizes = events.offsets[users], sizes[users]
    for low, high in user_blocks(np.concatenate([[0], np.cumsum(sizes)]), _PAIRS_BLOCK):
        yield ragged_ranges(begin[low:high], sizes[low:high])


def co_occurrence(
    events: Events, end: LongArray, items: int, window: int, most: int = 0, seed: int = 0
) -> sparse.csr_matrix:
    """Count how often an item comes within `window` events after another, nearer counting more.

    Args:
        events: all events.
        end: position after each user's events that count, [users].
        items: size of the catalogue.
        window: events between which two items count as near.
        most: events at most, as of `drawn_users`.
        seed: of the draw.

    Returns:
        Sparse [items, items]; entry (i, j) sums 1 / distance over occurrences of j after i; no diagonal.

    """
    from scipy import sparse

    matrix = sparse.csr_matrix((items, items), dtype=np.float32)
    for positions in drawn_blocks(events, end, most, seed):
        stop = end[events.user[positions]]
        for distance in range(1, window + 1):
            earlier = positions[positions + distance < stop]
            first, second = events.item[earlier], events.item[earlier + distance]
            differ = first != second
            ones = np.full(int(differ.sum()), 1.0 / distance, dtype=np.float32)
            pairs = sparse.csr_matrix((ones, (first[differ], second[differ])), shape=(items, items))
            matrix = matrix + pairs
    return matrix


def nearest_items(rows_of: Callable[[slice], sparse.csr_matrix], offsets: LongArray, k: int) -> Neighbours:
    """Return the k largest entries of each row, divided by the root of its row sum and its column sum.

    The division corrects for popularity (cosine). Rows are taken in blocks, twice.

    Args:
        rows_of: returns some rows of a sparse [items, items] matrix.
        offsets: entries before each row, about, [items + 1]; they size the blocks.
        k: neighbours of each item.
    """
    from scipy import sparse

    blocks = [slice(*block) for block in user_blocks(offsets, _PAIRS_BLOCK)]
    items = len(offsets) - 1
    rows, columns = np.zeros(items, dtype=np.float32), np.zeros(items, dtype=np.float32)
    for block in blocks:
        part = rows_of(block)
        rows[block] = np.asarray(part.sum(axis=1)).ravel()
        columns += np.asarray(part.sum(axis=0)).ravel()
    left, right = (1.0 / np.sqrt(np.maximum(sums, 1e-9)) for sums in (rows, columns))
    ids = np.full((items, k), -1, dtype=np.int32)
    weights = np.zeros((items, k), dtype=np.float32)
    for block in blocks:
        part = sparse.diags(left[block]) @ rows_of(block) @ sparse.diags(right)
        found = strongest(sparse.csr_matrix(part, dtype=np.float32), k)
        ids[block], weights[block] = found.ids, found.weights
    return Neighbours(ids, weights)


def attribute_codes(catalogue: Catalogue) -> IntArray:
    """Number the values of up to four string attributes that group items, [items, attributes].

    An attribute groups items when it has at least two values and at most one per five items.
    """
    frame = catalogue.frame
    columns: list[IntArray] = []
    for name in catalogue.attributes:
        if frame.schema[name] != pl.String or len(columns) == MAX_ATTRIBUTES:
            continue
        values = frame[name].drop_nulls().n_unique()
        if 2 <= values <= max(len(catalogue) // 5, 2) and frame[name].null_count() < len(catalogue) // 2:
            codes = frame[name].rank("dense").cast(pl.Int32) - 1  # nulls have no rank
            columns.append(codes.fill_null(-1).to_numpy())
    if not columns:
        return np.zeros((len(catalogue), 0), dtype=np.int32)
    return np.stack(columns, axis=1).astype(np.int32)


def _neighbours(follows: sparse.csr_matrix, k: int) -> tuple[Neighbours, Neighbours]:
    """Return the items that follow each item, and those near it in either order, of `co_occurrence`."""
    precedes = follows.T.tocsr()
    entries = follows.indptr.astype(np.int64) + precedes.indptr
    near = nearest_items(lambda rows: follows[rows], follows.indptr, k)
    return near, nearest_items(lambda rows: follows[rows] + precedes[rows], entries, k)


def _repeats(
    events: Events, end: LongArray, items: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the smoothed share of buyers who repeat, and the mean days between repeats, each [items]."""
    begin = events.offsets[:-1]
    buyers, repeaters, repeated = (np.zeros(items, dtype=np.int64) for _ in range(3))
    gaps = np.zeros(items)
    for low, high in user_blocks(np.concatenate([[0], np.cumsum(end - begin)])):
        positions = ragged_ranges(begin[low:high], end[low:high] - begin[low:high])
        user, item, time = events.user[positions], events.item[positions], events.time[positions]
        order = np.lexsort((time, item, user))
        user, item, time = user[order], item[order], time[order]
        days = np.zeros(len(time))
        days[1:] = np.diff(time) / DAY
        again = days > 0.5
        again[1:] &= (user[1:] == user[:-1]) & (item[1:] == item[:-1])
        pairs = user.astype(np.int64) * items + item
        buyers += np.bincount(np.unique(pairs) % items, minlength=items)
        repeaters += np.bincount(np.unique(pairs[again]) % items, minlength=items)
        repeated += np.bincount(item[again], minlength=items)
        np.add.at(gaps, item[again], np.minimum(days[again], MAX_GAP_DAYS))
    overall = repeaters.sum() / max(buyers.sum(), 1)
    rate = (repeaters + 5.0 * overall) / (buyers + 5.0)
    typical = gaps.sum() / max(repeated.sum(), 1) if repeated.sum() else MAX_GAP_DAYS
    return rate, (gaps + 3.0 * typical) / (repeated + 3.0)


def item_statistics(
    dataset: Dataset, end: LongArray, now: int, neighbours: int, window: int, most: int = 0, seed: int = 0
) -> Statistics:
    """Compute statistics from the events before `end`, in blocks.

    Args:
        dataset: the dataset.
        end: prefix per user, [users].
        now: Unix seconds of the cut; recency is measured from here.
        neighbours: neighbours per item.
        window: events between which two items count as near.
        most: events that neighbours are counted from at most; of more those of users drawn with the seed. 0
            takes all. Everything else is counted from all events.
        seed: of the draw.

    """
    events, catalogue = dataset.events, dataset.catalogue
    items = len(catalogue)
    count, recent = np.zeros(items, dtype=np.int64), np.zeros(items)
    for positions in prefix_blocks(events, end):
        item = events.item[positions]
        age = np.maximum(now - events.time[positions], 0) / DAY if dataset.has_time else np.zeros(len(item))
        count += np.bincount(item, minlength=items)
        np.add.at(recent, item, 0.5 ** (age / RECENT_DAYS))
    near, both = _neighbours(co_occurrence(events, end, items, window, most, seed), neighbours)
    rate, gap = _repeats(events, end, items)
    # Without timestamps all events are before any query.
    demand = Demand.of(events, lambda: prefix_blocks(events, end), items, 0 if dataset.has_time else DAY)
    price = np.zeros(items, dtype=np.float32)
    if schema.PRICE in catalogue.frame.columns:
        values = catalogue.frame[schema.PRICE].cast(pl.Float32, strict=False).fill_null(0.0).to_numpy()
        price = np.log1p(np.maximum(np.nan_to_num(values, posinf=0.0), 0.0)).astype(np.float32)
    return Statistics(
        now=np.array([now], dtype=np.int64),
        count=count.astype(np.float32),
        recent=recent.astype(np.float32),
        repeat_rate=rate.astype(np.float32),
        gap_days=gap.astype(np.float32),
        log_price=price,
        attributes=attribute_codes(catalogue),
        follow_ids=near.ids,
        follow_weights=near.weights,
        together_ids=both.ids,
        together_weights=both.weights,
        demand_keys=demand.keys,
        demand_totals=demand.totals,
        demand_calendar=demand.calendar,
        demand_first=demand.first,
    )
