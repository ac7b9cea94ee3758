"""Which items the lists show: concentration of exposure, new items, and hits that are not obvious."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from features.data.dataset import BoolArray, Dataset, Events, IntArray, LongArray
from features.data.histories import contains, seen_keys
from features.data.prefixes import prefix_blocks
from features.data.splits import Queries
from ranking.evaluation.metrics import HEADLINE, hit_matrix

YOUNG_SECONDS: Final = 28 * 86_400
"""Largest age of a young item, the time from its first event to the query."""
NEVER: Final = np.iinfo(np.int64).max
"""Time of the first event of an item without events."""


def gini(exposures: LongArray) -> float | None:
    """Return the Gini coefficient of exposure over the catalogue, items that are never shown included.

    0 where all items are shown equally often; (n - 1) / n where one of n items has all exposures. None
    without any exposure.

    Args:
        exposures: [items] how often each is shown.
    """
    total, count = int(exposures.sum()), len(exposures)
    if total == 0:
        return None
    ordered = np.sort(exposures).astype(np.float64)
    return float(((2 * np.arange(1, count + 1) - count - 1) * ordered).sum() / (count * total))


def exposure_gini(items: IntArray, n_items: int, k: int) -> float | None:
    """Return the Gini coefficient of how often each item of the catalogue is in the first k of a list."""
    shown = items[:, :k].ravel()
    return gini(np.bincount(shown[shown >= 0], minlength=n_items).astype(np.int64))


def first_times(events: Events, end: LongArray, n_items: int) -> LongArray:
    """Return the time of each item's first event before the positions `end` [users], or `NEVER`, [items]."""
    first = np.full(n_items, NEVER, dtype=np.int64)
    for positions in prefix_blocks(events, end):
        np.minimum.at(first, events.item[positions], events.time[positions])
    return first


def serendipity(
    items: IntArray, queries: Queries, obvious: IntArray, seen: LongArray, n_items: int, k: int
) -> float:
    """Return the share of the first k places that hold a hit which is not obvious.

    Useful and unexpected, as Ge, Delgado-Battenfeld and Jannach (RecSys 2010) define it: a hit that a
    primitive recommender would not have made. Primitive are the k items with most training events, and the
    items of the user's own history. Divided by k, not by the number of unexpected items, so that a list of
    one lucky item is not perfect.

    Args:
        items: [queries, depth] lists.
        queries: the queries with their targets.
        obvious: rows of the items with most training events.
        seen: of `seen_keys`.
        n_items: catalogue size.
        k: list length.
    """
    hits = hit_matrix(items[:, :k], queries)
    shown = items[:, :k]
    keys = np.arange(len(items), dtype=np.int64)[:, None] * n_items + shown
    surprising = hits & ~np.isin(shown, obvious) & ~contains(seen, keys)
    return float(surprising.sum() / max(len(items) * k, 1))


@dataclass(frozen=True)
class Exposure:
    """What the exposure of lists is compared with, the same for every system of a window."""

    n_items: int
    queries: Queries
    obvious: IntArray
    """The items with most training events."""
    seen: LongArray
    """Keys of the histories' items."""
    first: LongArray  # [items] time of the first event before the window
    has_time: bool

    @classmethod
    def of(cls, dataset: Dataset, queries: Queries, counts: LongArray, known_end: LongArray) -> Exposure:
        """Collect the inputs.

        Args:
            dataset: the dataset.
            queries: of the window.
            counts: [items] training events.
            known_end: [users] where the events end that the window's statistics may use.
        """
        n_items = len(dataset.catalogue)
        popular = np.argsort(-counts, kind="stable")[:HEADLINE].astype(np.int32)
        return cls(
            n_items,
            queries,
            popular[counts[popular] > 0],
            seen_keys(dataset.events, queries, n_items),
            first_times(dataset.events, known_end, n_items),
            dataset.has_time,
        )

    def summary(self, items: IntArray, k: int = HEADLINE) -> dict[str, float | None]:
        """Return `gini@k`, `serendipity@k`, `new_items@k` and `young_items@k` of lists.

        Args:
            items: [queries, depth] lists.
            k: first entries of each list to use.
        """
        shown = items[:, :k]
        real = shown >= 0
        first = self.first[np.maximum(shown, 0)]
        new = real & (first == NEVER)
        # No difference with NEVER, which would overflow.
        young = real & ~new & (self.queries.time[:, None] - np.where(new, 0, first) < YOUNG_SECONDS)
        total = int(real.sum())
        return {
            f"gini@{k}": exposure_gini(items, self.n_items, k),
            f"serendipity@{k}": serendipity(items, self.queries, self.obvious, self.seen, self.n_items, k)
            if len(items)
            else None,
            f"new_items@{k}": _share(new, total),
            f"young_items@{k}": _share(young, total) if self.has_time else None,
        }


def _share(mask: BoolArray, total: int) -> float | None:
    return float(mask.sum() / total) if total else None
