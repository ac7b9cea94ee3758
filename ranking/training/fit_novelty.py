"""Fitting of the novelty offsets on lists of a catalogue."""

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
"""Lists that the offsets are fitted on."""


def fit_novelty(
    recommender: Recommender, events: Events, cut: Cut, exclude_seen: bool, seed: int
) -> Novelty | None:
    """Return the score offset of cold items within each budget.

    Only scores and probabilities of lists are used, no outcomes.

    Args:
        recommender: the model; its own novelty offset is not used.
        events: all events.
        cut: end of the recommender's statistics and of the sampled users' histories.
        exclude_seen: whether items of the history are left out of lists.
        seed: of the sample.

    Returns:
        None without a ranking head, or where no cold item is a candidate.

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
        _concatenated([part[position] for part in parts], fill)
        for position, fill in enumerate((-np.inf, 0.0, False))
    )
    return Novelty.of_lists(scores, clicks, unknown, float((count == 0).mean()))


def _concatenated(blocks: list[np.ndarray], fill: float) -> np.ndarray:
    """Return blocks [lists, any] of different widths concatenated, [all lists, widest]."""
    width = max(block.shape[1] for block in blocks)
    wide = [np.pad(b, ((0, 0), (0, width - b.shape[1])), constant_values=fill) for b in blocks]
    return np.concatenate(wide)


def _lists(events: Events, cut: Cut, seed: int) -> Queries:
    """Return queries, without targets, of sampled users with a history at a cut."""
    users = np.flatnonzero(cut.end > events.offsets[:-1]).astype(np.int32)
    users = np.sort(np.random.default_rng(seed).permutation(users)[:LISTS])
    none = np.zeros(0, dtype=np.int32)
    times = np.full(len(users), cut.time, dtype=np.int64)
    return Queries(users, cut.end[users], times, np.zeros(len(users) + 1, dtype=np.int64), none, none)
