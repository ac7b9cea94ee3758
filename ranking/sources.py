"""Candidate sources: each proposes items for a history, and their proposals are merged with provenance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from conf.schema import CandidateConfig
from features.candidates import SOURCES, Candidates, ItemArrays, recency_weights, spread
from features.dataset import BoolArray, FloatArray, IntArray, LongArray
from features.histories import HistoryBatch, KeyedSums, contains
from ranking.index import Searches

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

    @property
    def filtered(self) -> bool:
        """Tell whether any query has a filter."""
        return any(mask is not None for mask in self.allowed)


def best_by_query(sums: KeyedSums, queries: int, items: int, k: int, limits: Limits) -> IntArray:
    """Return the k permitted items with the largest sums per query, [queries, k] padded with -1."""
    permitted = ~contains(limits.banned, sums.keys)
    owner, row = sums.keys // items, sums.keys % items
    if limits.hidden is not None:
        permitted &= ~limits.hidden[row]
    if limits.filtered:
        for query, mask in enumerate(limits.allowed):
            if mask is not None:
                mine = owner == query
                permitted[mine] &= mask[row[mine]]
    owner, row, value = owner[permitted], row[permitted], sums.sums[permitted]
    order = np.lexsort((row, -value, owner))
    owner, row = owner[order], row[order]
    first = np.searchsorted(owner, np.arange(queries))
    rank = np.arange(len(owner)) - first[owner]
    kept = rank < k
    best = np.full((queries, k), -1, dtype=np.int32)
    best[owner[kept], rank[kept]] = row[kept]
    return best


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
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    first = np.ones(ordered.shape, dtype=bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    starts = np.flatnonzero(first.ravel())
    masks = np.bitwise_or.reduceat(bits[order].ravel(), starts)
    fused = np.add.reduceat(points[order].ravel(), starts)
    owner, row = starts // rows.shape[1], ordered.ravel()[starts]
    real = row >= 0
    owner, row, masks, fused = owner[real], row[real], masks[real], fused[real]
    best_first = np.lexsort((row, -fused, owner))
    owner, row, masks, fused = owner[best_first], row[best_first], masks[best_first], fused[best_first]
    place = np.arange(len(owner)) - np.searchsorted(owner, np.arange(queries))[owner]
    width = int(np.bincount(owner, minlength=max(queries, 1)).max(initial=0))
    merged = np.full((queries, width), -1, dtype=np.int32)
    sources = np.zeros((queries, width), dtype=np.int16)
    scores = np.zeros((queries, width), dtype=np.float32)
    merged[owner, place], sources[owner, place], scores[owner, place] = row, masks, fused
    return Candidates(merged, sources, scores)


class CandidateSources:
    """All sources over one bundle's arrays."""

    def __init__(
        self,
        index: Searches,
        arrays: ItemArrays,
        config: CandidateConfig,
        by_popularity: IntArray | None = None,
    ) -> None:
        """Prepare the sources.

        Args:
            index: index over `arrays.item_vectors`.
            arrays: item-side arrays.
            config: quotas.
            by_popularity: rows to propose as popular, best first; None computes them from the statistics.

        """
        self.index = index
        self.arrays = arrays
        self.config = config
        statistics = arrays.statistics
        popularity = statistics.recent + 1e-3 * statistics.count
        if by_popularity is None:
            by_popularity = np.argsort(-popularity, kind="stable").astype(np.int32)
        self.by_popularity = by_popularity

    @property
    def items(self) -> int:
        """Catalogue size."""
        return len(self.arrays.statistics.count)

    def propose(
        self,
        batch: HistoryBatch,
        user_vectors: FloatArray,
        limits: Limits,
        intents: FloatArray | None = None,
        text_index: Searches | None = None,
    ) -> tuple[dict[str, IntArray], FloatArray]:
        """Ask every source.

        Args:
            batch: histories, one per query.
            user_vectors: [queries, dim]; a zero vector (no history) asks the user-vector source nothing.
            limits: what may be proposed.
            intents: [queries, text dim] unit vectors of free text, zero where there is none.
            text_index: index over text vectors; needed with intents.

        Returns:
            Rows per source, [queries, quota] padded with -1; each query's best retrieval score, [queries].

        """
        config, queries, items = self.config, len(batch), self.items
        recent = batch.newest(config.recent_items)
        weights = recency_weights(recent)
        statistics = self.arrays.statistics
        proposals: dict[str, IntArray] = {}
        proposals["user_vector"], best = self._nearest(self.index, user_vectors, config.user_vector, limits)
        if intents is not None and text_index is not None:
            proposals["intent"], _ = self._nearest(text_index, intents, config.user_vector, limits)
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
            proposals["popular"] = self._popular(queries, config.popular, limits)
        return proposals, best

    def _nearest(
        self, index: Searches, vectors: FloatArray, quota: int, limits: Limits
    ) -> tuple[IntArray, FloatArray]:
        queries = len(vectors)
        rows = np.full((queries, quota), -1, dtype=np.int32)
        best = np.zeros(queries, dtype=np.float32)
        asked = np.abs(vectors).sum(axis=1) > 0
        if quota == 0 or not asked.any():
            return rows, best
        bans = np.bincount((limits.banned // self.items).astype(np.int64), minlength=queries)
        plain = [q for q in np.flatnonzero(asked) if limits.allowed[q] is None]
        if plain:
            # Banned rows are fetched too and dropped, so ask for as many more.
            extra = int(2 ** np.ceil(np.log2(1 + bans[plain].max(initial=0)))) if bans[plain].any() else 0
            found, scores = index.search(vectors[plain], quota + extra)
            best[plain] = np.where(found[:, 0] >= 0, scores[:, 0], 0.0)
            rows[plain] = self._permitted(found, np.array(plain), quota, limits)
        for query in np.flatnonzero(asked):
            mask = limits.allowed[query]
            if mask is not None:
                found, scores = index.search(vectors[query : query + 1], quota + int(bans[query]), mask)
                best[query] = scores[0, 0] if found[0, 0] >= 0 else 0.0
                rows[query] = self._permitted(found, np.array([query]), quota, limits)[0]
        return rows, best

    def _permitted(self, found: IntArray, queries: LongArray, quota: int, limits: Limits) -> IntArray:
        """Drop banned rows and close the gaps, keeping order, [queries, quota]."""
        keys = queries[:, None] * self.items + found.astype(np.int64)
        dropped = (found < 0) | contains(limits.banned, keys)
        order = np.argsort(dropped, axis=1, kind="stable")[:, :quota]
        kept = np.where(
            np.take_along_axis(dropped, order, axis=1), -1, np.take_along_axis(found, order, axis=1)
        )
        if kept.shape[1] < quota:
            kept = np.pad(kept, ((0, 0), (0, quota - kept.shape[1])), constant_values=-1)
        return kept.astype(np.int32)

    def _popular(self, queries: int, quota: int, limits: Limits) -> IntArray:
        bans = np.bincount((limits.banned // self.items).astype(np.int64), minlength=queries)
        popular = np.full((queries, quota), -1, dtype=np.int32)
        reach = min(len(self.by_popularity), quota + int(bans.max(initial=0)))
        shared = np.broadcast_to(self.by_popularity[:reach], (queries, reach))
        popular[:] = self._permitted(shared.astype(np.int32), np.arange(queries), quota, limits)
        for query, mask in enumerate(limits.allowed):
            if mask is not None:
                own = self.by_popularity[mask[self.by_popularity]][None, : quota + int(bans[query])]
                popular[query] = self._permitted(own, np.array([query]), quota, limits)[0]
        return popular


def sources_of(mask: int) -> list[str]:
    """Names of the sources in a source mask."""
    return [name for bit, name in enumerate(SOURCES) if mask >> bit & 1]


def banned_keys(
    batch: HistoryBatch, exclude: list[npt.NDArray[np.integer]], seen: list[bool], items: int
) -> LongArray:
    """Return the sorted keys query * items + row of exclusions and, where asked, of the history."""
    owners = batch.owners()
    hide = np.array(seen, dtype=bool)
    keys = [(owners * items + batch.items)[hide[owners]]] if len(owners) else []
    keys += [query * items + rows.astype(np.int64) for query, rows in enumerate(exclude) if len(rows)]
    return np.unique(np.concatenate(keys)) if keys else np.zeros(0, dtype=np.int64)
