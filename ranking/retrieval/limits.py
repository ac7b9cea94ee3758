"""Limits of retrieval: the rows that any source may propose for each query of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from features.data.dataset import BoolArray, IntArray, LongArray
from features.data.histories import HistoryBatch
from features.kernels.compiled import compiled
from ranking.retrieval.faiss_masks import selected


@dataclass(frozen=True)
class Limits:
    """Rows that may be proposed."""

    excluded: LongArray
    """Sorted keys query * items + row that must not appear (exclusions, seen items)."""
    allowed: list[BoolArray | None]
    """Per query, the mask of rows that pass its filter."""
    hidden: BoolArray | None = None
    """[items] mask of rows excluded for every query (deleted items); None for none."""
    filters: Sequence[str] = ()
    """Per query, the filter of its mask in the project's language, or empty; a mask may be narrower."""

    @cached_property
    def groups(self) -> list[tuple[BoolArray | None, LongArray]]:
        """Each distinct mask, by identity because filters are cached, and the queries that share it."""
        shared: dict[int, tuple[BoolArray | None, list[int]]] = {}
        for query, mask in enumerate(self.allowed):
            shared.setdefault(id(mask), (mask, []))[1].append(query)
        return [(mask, np.array(queries, dtype=np.int64)) for mask, queries in shared.values()]

    def expression(self, query: int) -> str:
        """Return the filter of a query's mask; empty without one, or where it is not known."""
        return self.filters[query] if len(self.filters) else ""

    def excluded_counts(self, items: int) -> LongArray:
        """Return how many rows are excluded for each query of a catalogue of this size, [queries]."""
        return _excluded_counts(self.excluded, len(self.allowed), items)

    def excluded_rows(self, query: int, items: int) -> IntArray:
        """Return the rows that are excluded for a query of a catalogue of this size."""
        start, stop = np.searchsorted(self.excluded, [query * items, (query + 1) * items])
        return (self.excluded[start:stop] - query * items).astype(np.int32)

    @cached_property
    def bits(self) -> tuple[LongArray, npt.NDArray[np.uint8]]:
        """The mask index of each query, [queries], -1 for none, and the packed masks, lowest bit first.

        Hidden rows are masked, too.
        """
        which = np.full(len(self.allowed), -1, dtype=np.int64)
        masks: list[npt.NDArray[np.uint8]] = []
        shown = None if self.hidden is None else np.packbits(~self.hidden, bitorder="little")
        for mask, members in self.groups:
            bits = shown if mask is None else selected(mask).bits
            if bits is not None:
                which[members] = len(masks)
                masks.append(bits if shown is None else bits & shown)
        return which, np.stack(masks) if masks else np.zeros((0, 0), dtype=np.uint8)


def excluded_keys(
    batch: HistoryBatch, exclude: list[npt.NDArray[np.integer]], seen: list[bool], items: int
) -> LongArray:
    """Return the sorted keys query * items + row of exclusions and, where requested, of the history.

    Args:
        batch: the histories.
        exclude: rows to exclude, per query.
        seen: whether to exclude the items of the history, per query.
        items: catalogue size.

    """
    keys: list[LongArray] = []
    if any(seen):
        owners = batch.owners()
        keys.append((owners * items + batch.items)[np.array(seen, dtype=bool)[owners]])
    keys += [query * items + rows.astype(np.int64) for query, rows in enumerate(exclude) if len(rows)]
    return np.unique(np.concatenate(keys)) if keys else np.zeros(0, dtype=np.int64)


@compiled()
def _excluded_counts(excluded: LongArray, queries: int, items: int) -> LongArray:
    """Return the number of keys query * items + row of each query, [queries]."""
    counts = np.zeros(queries, dtype=np.int64)
    for key in excluded:
        counts[key // items] += 1
    return counts


@compiled()
def write_allowed(
    found: IntArray, queries: LongArray, excluded: LongArray, items: int, rows: IntArray
) -> None:
    """Copy the found rows that are not excluded, in order.

    Args:
        found: rows padded with -1, [queries, or 1 shared by all, any].
        queries: the queries that they were found for.
        excluded: sorted keys query * items + row.
        items: catalogue size.
        rows: written to, [all queries, quota].

    """
    for position in range(len(queries)):
        query, count = queries[position], 0
        for row in found[min(position, len(found) - 1)]:
            if count == rows.shape[1]:
                break
            if row >= 0:
                key = query * items + row
                at = np.searchsorted(excluded, key) if len(excluded) else 0
                if at == len(excluded) or excluded[at] != key:
                    rows[query, count] = row
                    count += 1


def first_allowed(order: IntArray, mask: BoolArray | None, count: int) -> IntArray:
    """Return the first `count` rows of an order that a mask allows, scanning no further than necessary."""
    if mask is None:
        return order[:count].astype(np.int32)
    scanned = 4 * count
    while True:
        head = order[:scanned]
        allowed = head[mask[head]]
        if len(allowed) >= count or scanned >= len(order):
            return allowed[:count].astype(np.int32)
        scanned *= 8
