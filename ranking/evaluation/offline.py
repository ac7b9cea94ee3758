"""The Recommender as systems under evaluation: the serving code, run block by block.

`offline_system` is the whole pipeline, `tower_system` its user tower alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from features.data.dataset import BoolArray, Events, FloatArray, IntArray
from features.data.histories import histories_of
from features.data.splits import Queries
from ranking.evaluation.stage_recall import System, SystemLists
from ranking.recommender import BLOCK, Recommender
from ranking.retrieval.nearest import most_popular, nearest
from ranking.training.examples import query_limits

DEPTH = 100
USER_TOWER = "user_tower"
"""Name of the user tower's lists in a result."""


def _widen(blocks: list[IntArray]) -> IntArray:
    """Return blocks of different widths concatenated, padded with -1."""
    width = max(b.shape[1] for b in blocks)
    return np.concatenate([np.pad(b, ((0, 0), (0, width - b.shape[1])), constant_values=-1) for b in blocks])


def _topk(rows: IntArray, scores: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return rows and scores by descending score, ties by row, [queries, 100] padded with -1 and -inf."""
    order = np.lexsort((rows, -scores), axis=1)[:, :DEPTH]
    short = ((0, 0), (0, max(DEPTH - order.shape[1], 0)))
    return (
        np.pad(np.take_along_axis(rows, order, axis=1), short, constant_values=-1),
        np.pad(np.take_along_axis(scores, order, axis=1), short, constant_values=-np.inf).astype(np.float32),
    )


def offline_system(
    recommender: Recommender, events: Events, exclude_seen: bool, advance: Callable[[int], None] | None = None
) -> System:
    """Return a system that returns final lists and the candidates of every stage.

    Args:
        recommender: retrieval and ranking as they serve.
        events: all events; a query's history ends at its own position.
        exclude_seen: whether lists leave out the history.
        advance: called with the number of queries done.
    """

    def answer(queries: Queries, allowed: BoolArray | None = None) -> SystemLists:
        items, scores, unions = [], [], []
        sources: dict[str, list[IntArray]] = {}
        for start in range(0, len(queries), BLOCK):
            block = queries.select(np.arange(start, min(start + BLOCK, len(queries))))
            batch = histories_of(events, block)
            limits = query_limits(recommender, events, block, exclude_seen, allowed)
            ranked = recommender.rank(batch, limits)
            lists, kept = _topk(ranked.candidates.rows, ranked.scores)
            items.append(lists)
            scores.append(kept)
            unions.append(ranked.candidates.rows)
            for name, proposed in ranked.proposals.items():
                sources.setdefault(name, []).append(proposed)
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
        )

    return answer


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
            lists, kept = _topk(rows, products.astype(np.float32))
            items.append(lists)
            scores.append(kept)
        rows = np.concatenate(items)
        return SystemLists(rows, np.concatenate(scores), {}, rows, rows)

    return answer
