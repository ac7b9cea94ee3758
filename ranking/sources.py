"""Candidate sources: each proposes items for a history, and their proposals are merged with provenance."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conf.schema import CandidateConfig, IndexConfig
from features.candidates import SOURCES, Candidates, ItemArrays, UserVectors, recency_weights, spread
from features.dataset import BoolArray, FloatArray, IntArray, LongArray
from features.histories import HistoryBatch, KeyedSums, contains, falling, stable_order
from ranking.index import Searches, VectorIndex
from ranking.subset_index import SubsetIndex

FUSION = 60.0
"""Constant of reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009)."""


@dataclass(frozen=True)
class Limits:
    """What may be proposed."""

    banned: LongArray
    """Sorted keys query * items + row that must not appear (exclusions, seen items)."""
    allowed: list[BoolArray | None]
    """Per query, the mask of rows that pass its filter."""
    hidden: BoolArray | None = None
    """[items] mask of rows that no query may be given (deleted items); None where there are none."""

    def groups(self) -> list[tuple[BoolArray | None, LongArray]]:
        """Return each mask (one object: filters are cached) and the queries that share it."""
        shared: dict[int, tuple[BoolArray | None, list[int]]] = {}
        for query, mask in enumerate(self.allowed):
            shared.setdefault(id(mask), (mask, []))[1].append(query)
        return [(mask, np.array(queries, dtype=np.int64)) for mask, queries in shared.values()]


def best_by_query(sums: KeyedSums, queries: int, items: int, k: int, limits: Limits) -> IntArray:
    """Return the k permitted items with the largest sums per query, [queries, k] padded with -1."""
    permitted = ~contains(limits.banned, sums.keys)
    owner, row = sums.keys // items, sums.keys % items
    if limits.hidden is not None:
        permitted &= ~limits.hidden[row]
    for mask, members in limits.groups():
        if mask is not None:
            inside = np.zeros(queries, dtype=np.bool_)
            inside[members] = True
            permitted &= mask[row] | ~inside[owner]
    owner, row, value = owner[permitted], row[permitted], sums.sums[permitted]
    order = stable_order((owner << 33) + falling(value))  # rows rise already
    owner, row = owner[order], row[order]
    first = np.searchsorted(owner, np.arange(queries))
    rank = np.arange(len(owner)) - first[owner]
    kept = rank < k
    best = np.full((queries, k), -1, dtype=np.int32)
    best[owner[kept], rank[kept]] = row[kept]
    return best


def popularity_order(popularity: FloatArray) -> IntArray:
    """Return rows by falling popularity, [items]; items without any in a fixed random order.

    Rows often tell when an item was added; where a filter leaves only new items, the first of them must not
    pass for the popular ones.
    """
    drawn = np.random.default_rng(0).random(len(popularity))
    tie = np.where(popularity > 0, 0.0, drawn)
    return np.lexsort((tie, -popularity)).astype(np.int32)


def merge(proposals: dict[str, IntArray], queries: int) -> Candidates:
    """Unite the sources' proposals, the best fused rank first.

    Args:
        proposals: per source, rows [queries, quota], best first, padded with -1.
        queries: number of queries.

    """
    blocks = [(SOURCES.index(name), rows) for name, rows in proposals.items() if rows.shape[1] > 0]
    if not blocks:
        empty = np.zeros((queries, 0))
        return Candidates(empty.astype(np.int32), empty.astype(np.int16), empty.astype(np.float32))
    rows = np.concatenate([r for _, r in blocks], axis=1)
    bits = np.concatenate([np.full(r.shape[1], 1 << bit, dtype=np.int16) for bit, r in blocks])
    points = np.concatenate([1.0 / (FUSION + 1.0 + np.arange(r.shape[1])) for _, r in blocks])
    order = stable_order(rows)
    ordered = np.take_along_axis(rows, order, axis=1)
    first = np.ones(ordered.shape, dtype=bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = np.flatnonzero(first.ravel())
    masks = np.bitwise_or.reduceat(bits[order].ravel(), starts)
    fused = np.add.reduceat(points[order].ravel(), starts)
    owner, row = starts // rows.shape[1], ordered.ravel()[starts]
    real = row >= 0
    owner, row, masks, fused = owner[real], row[real], masks[real], fused[real]
    place = np.arange(len(owner)) - np.searchsorted(owner, np.arange(queries))[owner]
    width = int(np.bincount(owner, minlength=max(queries, 1)).max(initial=0))
    merged = np.full((queries, width), -1, dtype=np.int32)
    found = np.zeros((queries, width), dtype=np.int16)
    scores = np.zeros((queries, width), dtype=np.float64)
    merged[owner, place], found[owner, place], scores[owner, place] = row, masks, fused
    best_first = np.argsort(-scores, axis=1, kind="stable")  # rows rise already
    return Candidates(
        np.take_along_axis(merged, best_first, axis=1),
        np.take_along_axis(found, best_first, axis=1),
        np.take_along_axis(scores, best_first, axis=1).astype(np.float32),
    )


def new_rows(count: FloatArray) -> IntArray:
    """Return the rows of items without events; none where all are new, as nothing then stands out."""
    new = np.flatnonzero(count == 0).astype(np.int32)
    return new if len(new) < len(count) else new[:0]


@dataclass(frozen=True)
class Kept:
    """What the sources keep beside the arrays; nothing of it finds a row that must not appear."""

    by_popularity: IntArray
    """Rows to propose as popular, best first."""
    new_index: Searches
    """Index over the vectors of items without events, see `new_vectors`."""
    factor_index: Searches | None
    """Index over the co-purchase factors; None where there are none."""

    @classmethod
    def of(
        cls,
        arrays: ItemArrays,
        factor_index: Searches | None = None,
        new_index: VectorIndex | None = None,
    ) -> Kept:
        """Work everything out for a catalogue of which every row may appear.

        Args:
            arrays: item-side arrays.
            factor_index: index over the co-purchase factors; None builds one.
            new_index: index over the vectors of `new_rows`; None builds one.

        """
        statistics, factors = arrays.statistics, arrays.factor_vectors
        if factor_index is None and factors.shape[1]:
            factor_index = VectorIndex.build(factors, IndexConfig(gpu=False))
        new = new_rows(statistics.count)
        if new_index is None:
            new_index = VectorIndex.build(new_vectors(arrays)[new], IndexConfig(gpu=False))
        return cls(
            popularity_order(statistics.recent + 1e-3 * statistics.count),
            SubsetIndex(new_index, new, len(statistics.count)),
            factor_index,
        )


def new_vectors(arrays: ItemArrays) -> FloatArray:
    """Return the vectors that tell most of items without events, [items, dim]."""
    if arrays.affinity_units.shape[1]:
        return arrays.affinity_units
    return arrays.factor_vectors if arrays.factor_vectors.shape[1] else arrays.item_vectors


class CandidateSources:
    """All sources over one bundle's arrays."""

    def __init__(
        self,
        index: Searches,
        arrays: ItemArrays,
        config: CandidateConfig,
        kept: Kept | None = None,
    ) -> None:
        """Prepare the sources.

        Args:
            index: index over `arrays.item_vectors`.
            arrays: item-side arrays.
            config: quotas.
            kept: what is known already of a catalogue that changes; None works everything out.

        """
        self.index = index
        self.arrays = arrays
        self.config = config
        kept = kept or Kept.of(arrays)
        self.by_popularity = kept.by_popularity
        self.new_index = kept.new_index
        self.factor_index = kept.factor_index

    def with_quotas(self, config: CandidateConfig) -> CandidateSources:
        """Return the same sources under other quotas."""
        sources = copy(self)
        sources.config = config
        return sources

    @property
    def items(self) -> int:
        """Catalogue size."""
        return len(self.arrays.statistics.count)

    def propose(
        self,
        batch: HistoryBatch,
        users: UserVectors,
        limits: Limits,
        intents: FloatArray | None = None,
        text_index: Searches | None = None,
    ) -> tuple[dict[str, IntArray], FloatArray]:
        """Ask every source.

        Args:
            batch: histories, one per query.
            users: their vectors; a zero vector (no history) asks nothing.
            limits: what may be proposed.
            intents: [queries, text dim] unit vectors of free text, zero where there is none.
            text_index: index over text vectors; needed with intents.

        Returns:
            Rows per source, [queries, quota] padded with -1; best scores by tower and factors [queries, 2].

        """
        config, queries, items = self.config, len(batch), self.items
        recent = batch.newest(config.recent_items)
        weights = recency_weights(recent)
        statistics = self.arrays.statistics
        proposals: dict[str, IntArray] = {}
        proposals["user_vector"], best = self.nearest(self.index, users.tower, config.user_vector, limits)
        closest = np.zeros(queries, dtype=np.float32)
        if self.factor_index is not None:
            rows, closest = self.nearest(self.factor_index, users.factors, config.co_purchase, limits)
            proposals["co_purchase"] = rows
        if intents is not None and text_index is not None:
            proposals["intent"], _ = self.nearest(text_index, intents, config.user_vector, limits)
        if config.item_to_item:
            sums = spread(recent, statistics.together, items, weights)
            proposals["item_to_item"] = best_by_query(sums, queries, items, config.item_to_item, limits)
        if config.text_neighbours:
            sums = spread(recent, self.arrays.text_near, items, weights)
            proposals["text_neighbours"] = best_by_query(sums, queries, items, config.text_neighbours, limits)
        if config.repeat:
            ages = 1.0 + batch.age() / 50.0
            sums = KeyedSums.of(batch.owners() * items + batch.items, 1.0 / ages)
            proposals["repeat"] = best_by_query(sums, queries, items, config.repeat, limits)
        if config.popular:
            proposals["popular"] = self.popular(queries, config.popular, limits)
        if config.new_items:
            proposals["new_items"] = self._new(users, config.new_items, limits)
        return proposals, np.stack([best, closest], axis=1)

    def nearest(
        self, index: Searches, vectors: FloatArray, quota: int, limits: Limits
    ) -> tuple[IntArray, FloatArray]:
        """Ask an index; a zero vector asks it nothing.

        Queries that share a filter are searched together, so that many of them cost little more than one.

        Args:
            index: over vectors of the whole catalogue.
            vectors: [queries, dim].
            quota: rows per query.
            limits: what may be proposed.

        Returns:
            Rows [queries, quota], best first, padded with -1; each query's best score, 0 without, [queries].

        """
        queries = len(vectors)
        rows = np.full((queries, quota), -1, dtype=np.int32)
        best = np.zeros(queries, dtype=np.float32)
        asked = np.abs(vectors).sum(axis=1) > 0
        if quota == 0 or not asked.any():
            return rows, best
        bans = np.bincount((limits.banned // self.items).astype(np.int64), minlength=queries)
        for mask, members in limits.groups():
            some = members[asked[members]]
            if len(some) == 0:
                continue
            # Banned rows are fetched too and dropped, so ask for as many more.
            extra = int(2 ** np.ceil(np.log2(1 + bans[some].max()))) if bans[some].any() else 0
            found, scores = index.search(vectors[some], quota + extra, mask)
            best[some] = np.where(found[:, 0] >= 0, scores[:, 0], 0.0)
            rows[some] = self._permitted(found, some, quota, limits)
        return rows, best

    def _permitted(self, found: IntArray, queries: LongArray, quota: int, limits: Limits) -> IntArray:
        """Drop banned rows and close the gaps, keeping order, [queries, quota]."""
        keys = queries[:, None] * self.items + found.astype(np.int64)
        dropped = (found < 0) | contains(limits.banned, keys)
        if found.shape[1] >= quota and not dropped[:, :quota].any():
            return found[:, :quota].astype(np.int32)
        order = np.argsort(dropped, axis=1, kind="stable")[:, :quota]
        kept = np.where(
            np.take_along_axis(dropped, order, axis=1), -1, np.take_along_axis(found, order, axis=1)
        )
        if kept.shape[1] < quota:
            kept = np.pad(kept, ((0, 0), (0, quota - kept.shape[1])), constant_values=-1)
        return kept.astype(np.int32)

    def _new(self, users: UserVectors, quota: int, limits: Limits) -> IntArray:
        """Return each query's nearest items among those without any event, [queries, quota] padded with -1.

        However near it is, a new item stands behind thousands that are known better; without places of its
        own it would never be seen, and stay new.
        """
        asked = users.tower
        if self.arrays.affinity_units.shape[1]:
            asked = users.affinity
        elif self.arrays.factor_vectors.shape[1]:
            asked = users.factors
        return self.nearest(self.new_index, asked, quota, limits)[0]

    def popular(self, queries: int, quota: int, limits: Limits) -> IntArray:
        """Return the most popular permitted items per query, [queries, quota] padded with -1."""
        bans = np.bincount((limits.banned // self.items).astype(np.int64), minlength=queries)
        popular = np.full((queries, quota), -1, dtype=np.int32)
        for mask, members in limits.groups():
            order = first_allowed(self.by_popularity, mask, quota + int(bans[members].max()))
            shared = np.broadcast_to(order, (len(members), len(order)))
            popular[members] = self._permitted(shared, members, quota, limits)
        return popular


def first_allowed(order: IntArray, mask: BoolArray | None, count: int) -> IntArray:
    """Return the first rows of an order that a mask allows, at most `count`, looking no further than that."""
    if mask is None:
        return order[:count].astype(np.int32)
    looked = 4 * count
    while True:
        head = order[:looked]
        allowed = head[mask[head]]
        if len(allowed) >= count or looked >= len(order):
            return allowed[:count].astype(np.int32)
        looked *= 8


def first_source(mask: int) -> str:
    """Name of the first source in a source mask, which has one."""
    return SOURCES[(mask & -mask).bit_length() - 1]


def banned_keys(
    batch: HistoryBatch, exclude: list[npt.NDArray[np.integer]], seen: list[bool], items: int
) -> LongArray:
    """Return the sorted keys query * items + row of exclusions and, where asked, of the history."""
    owners = batch.owners()
    hide = np.array(seen, dtype=bool)
    keys = [(owners * items + batch.items)[hide[owners]]] if len(owners) else []
    keys += [query * items + rows.astype(np.int64) for query, rows in enumerate(exclude) if len(rows)]
    return np.unique(np.concatenate(keys)) if keys else np.zeros(0, dtype=np.int64)
