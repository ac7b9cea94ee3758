"""Finding how far new items can be moved up at which price, from lists of the catalogue at hand."""

from __future__ import annotations

from typing import Final

import numpy as np

from features.data.dataset import BoolArray, Events, FloatArray
from features.data.histories import histories_of
from features.data.splits import Queries
from features.data.training_windows import Cut
from ranking.recommender import BLOCK, Recommender
from ranking.scoring.novelty import Novelty
from ranking.training.examples import query_limits

LISTS: Final = 2000
"""Lists that the offsets are found from."""


def fit_novelty(
    recommender: Recommender, events: Events, cut: Cut, exclude_seen: bool, seed: int
) -> Novelty | None:
    """Find what a recommender may add to its unknown items within each budget.

    Nothing but lists is looked at: what became of them is of no account.

    Args:
        recommender: what it adds to unknown items itself is not used.
        events: all events.
        cut: what the recommender knows; lists are made for drawn users with their histories up to there.
        exclude_seen: whether items of the history are left out of lists.
        seed: fixes the draw.

    Returns:
        None without a ranking head, or where no unknown item is ever a candidate.

    """
    count = recommender.arrays.statistics.count
    queries = _lists(events, cut, seed)
    if recommender.ranker is None or len(queries) == 0:
        return None
    parts: list[tuple[FloatArray, FloatArray, BoolArray]] = []
    for start in range(0, len(queries), BLOCK):
        block = queries.select(np.arange(start, min(start + BLOCK, len(queries))))
        limits = query_limits(recommender, events, block, exclude_seen)
        ranked = recommender.rank(histories_of(events, block), limits, novelty=[0.0] * len(block))
        rows = ranked.candidates.rows
        unknown = (rows >= 0) & (count[np.maximum(rows, 0)] == 0)
        parts.append((ranked.scores, ranked.probabilities[..., 0], unknown))
    scores, clicks, unknown = (
        _together([part[position] for part in parts], fill)
        for position, fill in enumerate((-np.inf, 0.0, False))
    )
    return Novelty.of_lists(scores, clicks, unknown, float((count == 0).mean()))


def _together(blocks: list[np.ndarray], fill: float) -> np.ndarray:
    """Put blocks [lists, any] of different widths together, [all lists, widest]."""
    width = max(block.shape[1] for block in blocks)
    wide = [np.pad(b, ((0, 0), (0, width - b.shape[1])), constant_values=fill) for b in blocks]
    return np.concatenate(wide)


def _lists(events: Events, cut: Cut, seed: int) -> Queries:
    """Return queries of drawn users who have a history at a cut, without targets."""
    users = np.flatnonzero(cut.end > events.offsets[:-1]).astype(np.int32)
    users = np.sort(np.random.default_rng(seed).permutation(users)[:LISTS])
    none = np.zeros(0, dtype=np.int32)
    times = np.full(len(users), cut.time, dtype=np.int64)
    return Queries(users, cut.end[users], times, np.zeros(len(users) + 1, dtype=np.int64), none, none)
