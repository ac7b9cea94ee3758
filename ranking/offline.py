"""The Recommender as a system under evaluation: the same code that serves, asked block by block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from features.dataset import Events, IntArray
from features.histories import histories_of
from features.splits import Queries
from ranking.examples import query_limits
from ranking.recommender import BLOCK, Recommender
from ranking.stages import SystemLists

DEPTH = 100


def _widen(blocks: list[IntArray]) -> IntArray:
    """Put blocks of different widths together, padded with -1."""
    width = max(b.shape[1] for b in blocks)
    return np.concatenate([np.pad(b, ((0, 0), (0, width - b.shape[1])), constant_values=-1) for b in blocks])


def offline_system(
    recommender: Recommender, events: Events, exclude_seen: bool, advance: Callable[[int], None] | None = None
) -> Callable[[Queries], SystemLists]:
    """Return a function that answers queries with final lists and what every stage brought.

    Args:
        recommender: retrieval and ranking as they serve.
        events: all events; a query's history ends at its own position.
        exclude_seen: whether lists leave out the history.
        advance: called with the number of queries done.
    """

    def answer(queries: Queries) -> SystemLists:
        items, scores, unions = [], [], []
        sources: dict[str, list[IntArray]] = {}
        for start in range(0, len(queries), BLOCK):
            block = queries.select(np.arange(start, min(start + BLOCK, len(queries))))
            batch = histories_of(events, block)
            ranked = recommender.rank(batch, query_limits(recommender, events, block, exclude_seen))
            rows = ranked.candidates.rows
            order = np.lexsort((rows, -ranked.scores), axis=1)[:, :DEPTH]
            lists = np.take_along_axis(rows, order, axis=1)
            short = max(DEPTH - lists.shape[1], 0)
            items.append(np.pad(lists, ((0, 0), (0, short)), constant_values=-1))
            kept = np.take_along_axis(ranked.scores, order, axis=1)
            scores.append(np.pad(kept, ((0, 0), (0, short)), constant_values=-np.inf))
            unions.append(rows)
            for name, proposed in ranked.proposals.items():
                sources.setdefault(name, []).append(proposed)
            if advance is not None:
                advance(len(block))
        union = _widen(unions)
        # Limits apply inside every source, so nothing is left for a filter after the union to remove.
        return SystemLists(
            np.concatenate(items),
            np.concatenate(scores).astype(np.float32),
            {name: _widen(blocks) for name, blocks in sources.items()},
            union,
            union,
        )

    return answer
