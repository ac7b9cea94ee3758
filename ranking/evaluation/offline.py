"""The Recommender as systems under evaluation: the serving code, run block by block.

`offline_system` is the whole pipeline, `tower_system` its user tower alone; `ListsAfterEvent` makes the
pipeline's lists after one more event.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from features.data import schema
from features.data.dataset import BoolArray, Dataset, Events, FloatArray, IntArray, LongArray
from features.data.histories import HistoryBatch, contains, histories_of
from features.data.splits import Queries
from ranking.evaluation.losses import TargetPaths, target_outcomes
from ranking.evaluation.metrics import HEADLINE, target_ranks
from ranking.evaluation.stage_recall import System, SystemLists
from ranking.recommender import BLOCK, Recommender
from ranking.rerank.slate import best_slate
from ranking.retrieval.limits import Limits, excluded_keys
from ranking.retrieval.nearest import most_popular, nearest
from ranking.sources import SourceRequest
from ranking.stages import Ranked
from ranking.training.examples import query_limits

DEPTH = 100
USER_TOWER = "user_tower"
"""Name of the user tower's lists in a result."""
_COUNTED = 1 << 22
"""Events counted at a time."""


def _widen(blocks: list[IntArray]) -> IntArray:
    """Return blocks of different widths concatenated, padded with -1."""
    width = max(b.shape[1] for b in blocks)
    return np.concatenate([np.pad(b, ((0, 0), (0, width - b.shape[1])), constant_values=-1) for b in blocks])


def _order(rows: IntArray, scores: FloatArray) -> LongArray:
    """Return the positions of the best candidates, best first, ties by row, [queries, at most 100]."""
    return np.lexsort((rows, -scores), axis=1)[:, :DEPTH]


def _taken(rows: IntArray, scores: FloatArray, order: LongArray) -> tuple[IntArray, FloatArray]:
    """Return rows and scores in an order, [queries, 100] each, padded with -1 and -inf."""
    short = ((0, 0), (0, max(DEPTH - order.shape[1], 0)))
    return (
        np.pad(np.take_along_axis(rows, order, axis=1), short, constant_values=-1),
        np.pad(np.take_along_axis(scores, order, axis=1), short, constant_values=-np.inf).astype(np.float32),
    )


def _first_probabilities(ranked: Ranked, order: LongArray, lists: IntArray) -> FloatArray:
    """Return the probabilities of the first ten items of each list, [queries, 10, 2], NaN at padding."""
    first = order[:, :HEADLINE, None]
    found = np.full((len(lists), HEADLINE, 2), np.nan, dtype=np.float32)
    found[:, : first.shape[1]] = np.take_along_axis(ranked.probabilities, first, axis=1)
    found[lists[:, :HEADLINE] < 0] = np.nan
    return found


def _diversified(
    order: LongArray, rows: IntArray, scores: FloatArray, units: FloatArray, diversity: float
) -> LongArray:
    """Return an order whose first ten are those of a served list of ten with this diversity, [queries, n]."""
    diverse = order.copy()
    for query, best in enumerate(order):
        slate = best_slate(rows[query, best], scores[query, best], units, HEADLINE, diversity)
        chosen = best[[item.candidate for item in slate.items]]
        diverse[query] = np.concatenate([chosen, best[~np.isin(best, chosen)]])
    return diverse


class _Paths:
    """Follows the targets of a recommender's queries through its stages."""

    def __init__(self, recommender: Recommender) -> None:
        self.recommender = recommender
        self.indexes = recommender.indexes.exact()

    def of(
        self, queries: Queries, batch: HistoryBatch, limits: Limits, ranked: Ranked, lists: IntArray
    ) -> TargetPaths:
        """Return the paths of a block's targets.

        Args:
            queries: the block.
            batch: its histories.
            limits: its limits.
            ranked: its scored candidates.
            lists: [queries, 100] its final lists.
        """
        recommender, union = self.recommender, ranked.candidates.rows
        owners = np.repeat(np.arange(len(queries), dtype=np.int64), np.diff(queries.target_offsets))
        excluded = contains(limits.excluded, owners * recommender.items + queries.targets)
        if limits.hidden is not None:
            excluded |= limits.hidden[queries.targets]
        places = target_ranks(union, queries)
        proposed = places > 0
        masks = np.zeros(len(places), dtype=np.int16)
        masks[proposed] = ranked.candidates.sources[owners[proposed], places[proposed] - 1]
        exact = self.indexes is recommender.indexes
        found = np.zeros(len(places), dtype=np.bool_)
        if not exact and not (proposed | excluded).all():
            found = target_ranks(self._exact_union(batch, limits), queries) > 0
        head = np.where(union < 0, -np.inf, ranked.head)
        by_head = _taken(union, head, _order(union, head))[0]
        outcomes = target_outcomes(queries, lists, by_head, union, ~excluded, found)
        return TargetPaths(outcomes, masks, recommender.sources.names, exact)

    def _exact_union(self, batch: HistoryBatch, limits: Limits) -> IntArray:
        """Return what all sources would propose with exact search, [queries, n]."""
        recommender = self.recommender
        request = SourceRequest(
            batch,
            recommender.encode(batch),
            limits,
            None,
            recommender.arrays,
            self.indexes,
            recommender.texts,
            recommender.config,
        )
        proposals = recommender.sources.propose(request)
        return recommender.sources.merge(proposals, len(batch)).rows


def offline_system(
    recommender: Recommender,
    events: Events,
    exclude_seen: bool,
    advance: Callable[[int], None] | None = None,
    diversity: float = 0.0,
) -> System:
    """Return a system that returns final lists and the candidates of every stage.

    Args:
        recommender: retrieval and ranking as they serve.
        events: all events; a query's history ends at its own position.
        exclude_seen: whether lists leave out the history.
        advance: called with the number of queries done.
        diversity: of the first ten, as of served lists of ten; the rest follows by score.
    """
    paths = _Paths(recommender)

    def answer(queries: Queries, allowed: BoolArray | None = None) -> SystemLists:
        items, scores, unions, followed, likely = [], [], [], [], []
        sources: dict[str, list[IntArray]] = {}
        for start in range(0, len(queries), BLOCK):
            block = queries.select(np.arange(start, min(start + BLOCK, len(queries))))
            batch = histories_of(events, block)
            limits = query_limits(recommender, events, block, exclude_seen, allowed)
            ranked = recommender.rank(batch, limits)
            rows = ranked.candidates.rows
            order = _order(rows, ranked.scores)
            if diversity > 0:
                order = _diversified(order, rows, ranked.scores, recommender.arrays.text_units, diversity)
            lists, kept = _taken(rows, ranked.scores, order)
            items.append(lists)
            scores.append(kept)
            unions.append(rows)
            for name, proposed in ranked.proposals.items():
                sources.setdefault(name, []).append(proposed)
            if allowed is None:
                followed.append(paths.of(block, batch, limits, ranked, lists))
                likely.append(_first_probabilities(ranked, order, lists))
            if advance is not None:
                advance(len(block))
        union = _widen(unions)
        # Limits apply inside every source, so a filter after the union would remove nothing.
        return SystemLists(
            np.concatenate(items),
            np.concatenate(scores),
            {name: _widen(blocks) for name, blocks in sources.items()},
            union,
            union,
            TargetPaths.joined(followed) if followed else None,
            np.concatenate(likely) if likely and recommender.ranker is not None else None,
        )

    return answer


@dataclass(frozen=True)
class ListsAfterEvent:
    """The lists of an `offline_system` after one more event at the time of the query."""

    recommender: Recommender
    events: Events
    exclude_seen: bool
    kind: int
    """Code of the kind of the event."""
    event: str
    """Its name."""
    diversity: float = 0.0

    @classmethod
    def of(
        cls, recommender: Recommender, dataset: Dataset, exclude_seen: bool, diversity: float
    ) -> ListsAfterEvent:
        """Choose the most frequent kind of click, or without clicks the most frequent kind."""
        counts = np.zeros(len(dataset.kinds), dtype=np.int64)
        for first in range(0, len(dataset.events), _COUNTED):  # `bincount` takes eight bytes a number
            counts += np.bincount(dataset.events.kind[first : first + _COUNTED], minlength=len(counts))
        clicks = np.array([kind in schema.CLICK_KINDS for kind in dataset.kinds])
        kind = int(np.argmax(np.where(clicks, counts, -1) if clicks.any() else counts))
        return cls(recommender, dataset.events, exclude_seen, kind, dataset.kinds[kind], diversity)

    def __call__(self, queries: Queries, items: IntArray) -> IntArray:
        """Return the lists after an event on the items [queries], [queries, 100] padded with -1."""
        lists = []
        for start in range(0, len(queries), BLOCK):
            index = np.arange(start, min(start + BLOCK, len(queries)))
            block = queries.select(index)
            batch = with_event(histories_of(self.events, block), items[index], self.kind)
            none = np.zeros(0, dtype=np.int32)
            excluded = excluded_keys(
                batch, [none] * len(block), [self.exclude_seen] * len(block), self.recommender.items
            )
            ranked = self.recommender.rank(batch, Limits(excluded, [None] * len(block)))
            rows = ranked.candidates.rows
            order = _order(rows, ranked.scores)
            if self.diversity > 0:
                units = self.recommender.arrays.text_units
                order = _diversified(order, rows, ranked.scores, units, self.diversity)
            lists.append(_taken(rows, ranked.scores, order)[0])
        return np.concatenate(lists)


def with_event(batch: HistoryBatch, items: IntArray, kind: int) -> HistoryBatch:
    """Return histories with one more event each, on the items [queries], at the time of the query."""
    at = batch.offsets[1:]
    return HistoryBatch(
        batch.offsets + np.arange(len(batch.offsets)),
        np.insert(batch.items, at, items),
        np.insert(batch.kinds, at, np.int8(kind)),
        np.insert(batch.times, at, batch.now),
        batch.now,
    )


def tower_system(recommender: Recommender, events: Events, exclude_seen: bool) -> System:
    """Return the user tower alone: the catalogue by inner product with the user vector, through the index.

    Users without history get popular items, as from every baseline.

    Args:
        recommender: of which only towers, index and popularity are used.
        events: all events; a query's history ends at its own position.
        exclude_seen: whether lists leave out the history.
    """

    def answer(queries: Queries, allowed: BoolArray | None = None) -> SystemLists:
        items, scores = [], []
        for start in range(0, len(queries), BLOCK):
            block = queries.select(np.arange(start, min(start + BLOCK, len(queries))))
            batch = histories_of(events, block)
            limits = query_limits(recommender, events, block, exclude_seen, allowed)
            users = recommender.user_vectors(batch)
            rows, _ = nearest(recommender.index, users, DEPTH, limits, recommender.items)
            vectors = recommender.arrays.item_vectors[np.maximum(rows, 0)]  # [queries, 100, dim]
            products = np.where(rows >= 0, (vectors @ users[:, :, None])[:, :, 0], -np.inf)
            cold_users = np.flatnonzero(~users.any(axis=1))
            if len(cold_users):
                by_popularity = recommender.indexes.by_popularity
                popular = most_popular(by_popularity, DEPTH, limits, recommender.items)
                rows[cold_users] = popular[cold_users]
                by_rank = -np.arange(rows.shape[1], dtype=np.float32)
                products[cold_users] = np.where(rows[cold_users] >= 0, by_rank, -np.inf)
            lists, kept = _taken(rows, products, _order(rows, products))
            items.append(lists)
            scores.append(kept)
        rows = np.concatenate(items)
        return SystemLists(rows, np.concatenate(scores), {}, rows, rows)

    return answer
