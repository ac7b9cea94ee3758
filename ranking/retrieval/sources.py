"""Candidate sources: each proposes items for a history, and their proposals are merged with provenance."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import numpy.typing as npt
import torch

from conf.schema import CandidateConfig, IndexConfig
from encoders.device import CPU
from features.candidates.features import SOURCES, ItemArrays, UserVectors
from features.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from features.data.histories import HistoryBatch
from features.data.statistics import Neighbours
from features.kernels.compiled import compiled
from ranking.kernels.topk import NeighbourWeights, best_sums
from ranking.retrieval.device_index import DeviceIndex
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.faiss_masks import selected
from ranking.retrieval.index_choice import CatalogueIndex, build_index, device_index
from ranking.retrieval.searcher import QueryGroup, VectorSearcher
from ranking.retrieval.subset_index import SubsetIndex

PER_EVENT = 1e-3
"""What an event counts towards popularity however old it is."""


@dataclass(frozen=True)
class Limits:
    """What may be proposed."""

    excluded: LongArray
    """Sorted keys query * items + row that must not appear (exclusions, seen items)."""
    allowed: list[BoolArray | None]
    """Per query, the mask of rows that pass its filter."""
    hidden: BoolArray | None = None
    """[items] mask of rows that no query may be given (deleted items); None where there are none."""

    @cached_property
    def groups(self) -> list[tuple[BoolArray | None, LongArray]]:
        """Return each mask (one object: filters are cached) and the queries that share it."""
        shared: dict[int, tuple[BoolArray | None, list[int]]] = {}
        for query, mask in enumerate(self.allowed):
            shared.setdefault(id(mask), (mask, []))[1].append(query)
        return [(mask, np.array(queries, dtype=np.int64)) for mask, queries in shared.values()]

    def bans(self, items: int) -> LongArray:
        """Return how many rows are excluded for each query of a catalogue of this size, [queries]."""
        return _bans(self.excluded, len(self.allowed), items)

    def banned_rows(self, query: int, items: int) -> IntArray:
        """Return the rows that are excluded for a query of a catalogue of this size."""
        start, stop = np.searchsorted(self.excluded, [query * items, (query + 1) * items])
        return (self.excluded[start:stop] - query * items).astype(np.int32)

    @cached_property
    def bits(self) -> tuple[LongArray, npt.NDArray[np.uint8]]:
        """Return which mask a query has, -1 for none, [queries], and the masks' bits, the lowest first.

        They leave out hidden rows, too.
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


@compiled()
def _bans(excluded: LongArray, queries: int, items: int) -> LongArray:
    """Return how many of the keys query * items + row each query has, [queries]."""
    counts = np.zeros(queries, dtype=np.int64)
    for key in excluded:
        counts[key // items] += 1
    return counts


@compiled()
def _write_allowed(
    found: IntArray, queries: LongArray, excluded: LongArray, items: int, rows: IntArray
) -> None:
    """Write the found rows that are not excluded, in their order.

    Args:
        found: rows padded with -1, [queries or 1 for all of them, any].
        queries: which queries they were found for.
        excluded: sorted keys query * items + row.
        items: catalogue size.
        rows: written to, [all queries, quota].

    """
    for place in range(len(queries)):
        query, count = queries[place], 0
        for row in found[min(place, len(found) - 1)]:
            if count == rows.shape[1]:
                break
            if row >= 0:
                key = query * items + row
                ban = np.searchsorted(excluded, key) if len(excluded) else 0
                if ban == len(excluded) or excluded[ban] != key:
                    rows[query, count] = row
                    count += 1


def popularity(recent: FloatArray, count: FloatArray) -> FloatArray:
    """Return by what items are called popular, [items]: recent demand, and where there is none, any."""
    return recent + np.float32(PER_EVENT) * count


def popularity_order(popularity: FloatArray) -> IntArray:
    """Return rows by falling popularity, [items]; items without any in a fixed random order.

    Rows often tell when an item was added; where a filter leaves only new items, the first of them must not
    pass for the popular ones.
    """
    drawn = np.random.default_rng(0).random(len(popularity))
    tie = np.where(popularity > 0, 0.0, drawn)
    return np.lexsort((tie, -popularity)).astype(np.int32)


def new_rows(count: FloatArray) -> IntArray:
    """Return the rows of items without events; none where all are new, as nothing then stands out."""
    new = np.flatnonzero(count == 0).astype(np.int32)
    return new if len(new) < len(count) else new[:0]


@dataclass(frozen=True)
class SourceIndexes:
    """What the sources keep beside the arrays; nothing of it finds a row that must not appear."""

    by_popularity: IntArray
    """Rows to propose as popular, best first."""
    new_index: VectorSearcher
    """Index over the vectors of items without events, see `new_vectors`."""
    factor_index: VectorSearcher | None
    """Index over the co-purchase factors; None where there are none."""
    added_index: VectorSearcher | None = None
    """Index over `new_vectors` of items that came after the bundle, until they are well known."""

    @classmethod
    def of(
        cls,
        arrays: ItemArrays,
        factor_index: VectorSearcher | None = None,
        new_index: CatalogueIndex | None = None,
        device: torch.device = CPU,
        room: int = 0,
    ) -> SourceIndexes:
        """Work everything out for a catalogue of which every row may appear.

        Args:
            arrays: item-side arrays.
            factor_index: index over the co-purchase factors; None builds one.
            new_index: index over the vectors of `new_rows`, or on a GPU over `new_vectors` of all items; None
                builds one.
            device: where the indexes that are built search.
            room: how many items they may be given later, on a GPU.

        """
        statistics, factors = arrays.statistics, arrays.factor_vectors
        if factor_index is None and factors.shape[1]:
            factor_index = build_index(factors, device=device, room=room)
        popular = popularity_order(popularity(statistics.recent, statistics.count))
        new, vectors = new_rows(statistics.count), new_vectors(arrays)
        if new_index is None:
            if isinstance(factor_index, DeviceIndex) and vectors is factors:
                new_index = factor_index
            else:
                new_index = device_index(vectors, device, room)
        if isinstance(new_index, DeviceIndex):
            # The vectors of all items: they are looked through as fast, and more items become new.
            shown = np.zeros(len(vectors), dtype=np.bool_)
            shown[new] = True
            return cls(popular, new_index.state(len(vectors), shown), factor_index)
        if new_index is None:
            new_index = VectorIndex.build(vectors[new], IndexConfig())
        return cls(popular, SubsetIndex(new_index, new, len(statistics.count)), factor_index)


def new_vectors(arrays: ItemArrays) -> FloatArray:
    """Return the vectors that tell most of items without events, [items, dim]."""
    if arrays.affinity_units.shape[1]:
        return arrays.affinity_units
    return arrays.factor_vectors if arrays.factor_vectors.shape[1] else arrays.item_vectors


class CandidateSources:
    """All sources over one bundle's arrays."""

    def __init__(
        self,
        index: VectorSearcher,
        arrays: ItemArrays,
        config: CandidateConfig,
        kept: SourceIndexes | None = None,
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
        kept = kept or SourceIndexes.of(arrays)
        self.by_popularity = kept.by_popularity
        self.new_index = kept.new_index
        self.factor_index = kept.factor_index
        self.added_index = kept.added_index

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
    ) -> tuple[dict[str, IntArray], FloatArray]:
        """Ask every source that looks at histories.

        Args:
            batch: histories, one per query.
            users: their vectors; a zero vector (no history) asks nothing.
            limits: what may be proposed.

        Returns:
            Rows per source, [queries, quota] padded with -1; best scores by tower and factors [queries, 2].

        """
        config, queries = self.config, len(batch)
        statistics = self.arrays.statistics
        proposals: dict[str, IntArray] = {}
        proposals["user_vector"], best = self.nearest(self.index, users.tower, config.user_vector, limits)
        closest = np.zeros(queries, dtype=np.float32)
        if self.factor_index is not None:
            rows, closest = self.nearest(self.factor_index, users.factors, config.co_purchase, limits)
            proposals["co_purchase"] = rows
        if config.item_to_item:
            proposals["item_to_item"] = self._given(batch, statistics.together, config.item_to_item, limits)
        if config.text_neighbours:
            near = self.arrays.text_near
            proposals["text_neighbours"] = self._given(batch, near, config.text_neighbours, limits)
        if config.repeat:
            proposals["repeat"] = self._own(batch, config.repeat, limits)
        if config.popular:
            proposals["popular"] = self.popular(queries, config.popular, limits)
        if config.new_items:
            proposals["new_items"] = self._new(users, config.new_items, limits)
        return proposals, np.stack([best, closest], axis=1)

    def _given(self, batch: HistoryBatch, near: Neighbours, quota: int, limits: Limits) -> IntArray:
        """Return the strongest neighbours of the histories' newest items, [queries, quota] padded with -1."""
        giving = NeighbourWeights(
            batch.items, batch.offsets, self.config.recent_items, 1.0, near.ids, near.weights
        )
        return best_sums(giving, quota, *limits.bits, limits.excluded, self.items)

    def _own(self, batch: HistoryBatch, quota: int, limits: Limits) -> IntArray:
        """Return the histories' own items, the latest and most frequent first, [queries, quota]."""
        batch = batch.own()
        events = len(batch.items)
        itself, weights = batch.items[:, None], np.ones((events, 1), dtype=np.float32)
        places = np.arange(events, dtype=np.int32)
        giving = NeighbourWeights(places, batch.offsets, events, 50.0, itself, weights)
        return best_sums(giving, quota, *limits.bits, limits.excluded, self.items)

    def nearest(
        self, index: VectorSearcher, vectors: FloatArray, quota: int, limits: Limits
    ) -> tuple[IntArray, FloatArray]:
        """Ask an index; a zero vector asks it nothing.

        Queries that share a filter are searched together, so that many of them cost little more than one; on
        a GPU all are.

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
        asked: BoolArray = np.asarray(vectors.any(axis=1))
        if quota == 0 or not asked.any():
            return rows, best
        bans, groups = limits.bans(self.items), []
        for mask, members in limits.groups:
            some = members[asked[members]]
            if len(some) == 0:
                continue
            # Banned rows are fetched too and dropped, so ask for as many more.
            most = int(bans[some].max())
            extra = 1 << most.bit_length() if most else 0  # in steps, or every length would be another search
            groups.append(QueryGroup(some, quota + extra, mask))
        for group, (found, scores) in zip(groups, index.search_groups(vectors, groups), strict=True):
            best[group.members] = np.where(found[:, 0] >= 0, scores[:, 0], 0.0)
            _write_allowed(found, group.members, limits.excluded, self.items, rows)
        return rows, best

    def _new(self, users: UserVectors, quota: int, limits: Limits) -> IntArray:
        """Return each query's nearest items among those without any event, [queries, quota] padded with -1.

        However near it is, a new item stands behind thousands that are known better; without places of its
        own it would never be seen, and stay new. Half of the places are for items added since the bundle was
        made, before those of the bundle that nobody has ever chosen.
        """
        asked = users.tower
        if self.arrays.affinity_units.shape[1]:
            asked = users.affinity
        elif self.arrays.factor_vectors.shape[1]:
            asked = users.factors
        rows = self.nearest(self.new_index, asked, quota, limits)[0]
        if self.added_index is None:
            return rows
        added = self.nearest(self.added_index, asked, -(-quota // 2), limits)[0]
        return _with_first(added, rows)

    def popular(self, queries: int, quota: int, limits: Limits) -> IntArray:
        """Return the most popular permitted items per query, [queries, quota] padded with -1."""
        bans = limits.bans(self.items)
        popular = np.full((queries, quota), -1, dtype=np.int32)
        for mask, members in limits.groups:
            order = first_allowed(self.by_popularity, mask, quota + int(bans[members].max()))
            _write_allowed(order[None], members, limits.excluded, self.items, popular)
        return popular


def _with_first(first: IntArray, rows: IntArray) -> IntArray:
    """Return rows [queries, quota] behind others [queries, any], each once, as many as there were."""
    repeated = (rows[:, :, None] == first[:, None, :]).any(axis=2) | (rows < 0)
    both = np.concatenate([first, np.where(repeated, -1, rows)], axis=1)
    order = np.argsort(both < 0, axis=1, kind="stable")[:, : rows.shape[1]]
    return np.take_along_axis(both, order, axis=1)


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


@cache
def first_source(mask: int) -> str:
    """Name of the first source in a source mask, which has one."""
    return SOURCES[(mask & -mask).bit_length() - 1]


def banned_keys(
    batch: HistoryBatch, exclude: list[npt.NDArray[np.integer]], seen: list[bool], items: int
) -> LongArray:
    """Return the sorted keys query * items + row of exclusions and, where asked, of the history."""
    keys: list[LongArray] = []
    if any(seen):
        owners = batch.owners()
        keys.append((owners * items + batch.items)[np.array(seen, dtype=bool)[owners]])
    keys += [query * items + rows.astype(np.int64) for query, rows in enumerate(exclude) if len(rows)]
    return np.unique(np.concatenate(keys)) if keys else np.zeros(0, dtype=np.int64)
