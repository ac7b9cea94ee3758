"""The third and fourth stage of a trace: the scores of an item, also of one that no source proposed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from features.candidates.features import Candidates
from features.data.dataset import FloatArray, IntArray, LongArray
from ranking.recommender import Recommender
from ranking.stages import Ranked, Retrieved, Stages


@dataclass(frozen=True)
class Scored:
    """The candidates of a block with the item among those of every query."""

    retrieved: Retrieved
    ranked: Ranked
    columns: LongArray
    """[queries] of the item."""

    def scores(self) -> FloatArray:
        """Return the item's score of each query, [queries]."""
        found: FloatArray = self.ranked.scores[np.arange(len(self.columns)), self.columns]
        return found


@dataclass(frozen=True)
class Standing:
    """An item among the scored candidates of a list."""

    candidates: int
    """How many there are, the item included."""
    head: float
    """Score of the ranking head; of the fused sources where the bundle has none."""
    head_place: int
    """From 1, by this score."""
    p_click: float
    p_purchase: float
    """Calibrated probabilities; NaN without a ranking head."""
    novelty: float
    """Offset of an item without training events, 0 for others."""
    fit: float | None
    """Relevance to the text query; None without one."""
    score: float
    """The final score."""
    place: int
    """From 1, by the final score."""
    last: float | None
    """Final score of the candidate at the list's last place; None for a list that all candidates fit into."""


def scored_with(recommender: Recommender, stages: Stages, row: int, mask: int) -> Scored:
    """Return a block's candidates with an item, scored; where it is one already, nothing is changed.

    Args:
        recommender: that made the lists.
        stages: of the block.
        row: the item.
        mask: source mask that the item has where it is no candidate.

    """
    rows = stages.retrieved.candidates.rows
    present = (rows == row).any(axis=1)
    if present.all():
        return Scored(stages.retrieved, stages.ranked, (rows == row).argmax(axis=1))
    retrieved = stages.retrieved._replace(
        candidates=_with_column(
            stages.retrieved.candidates, np.where(present, -1, row).astype(np.int32), mask
        )
    )
    filtered = stages.filtered
    ranked = recommender.score(filtered.batch, stages.users, retrieved, stages.novelty, filtered.intents)
    return Scored(retrieved, ranked, (retrieved.candidates.rows == row).argmax(axis=1))


def _with_column(candidates: Candidates, rows: IntArray, mask: int) -> Candidates:
    masks = np.where(rows >= 0, np.int16(mask), np.int16(0))
    return Candidates(
        np.concatenate([candidates.rows, rows[:, None]], axis=1),
        np.concatenate([candidates.sources, masks[:, None]], axis=1),
        np.concatenate([candidates.fused, np.zeros((len(rows), 1), np.float32)], axis=1),
    )


def standing(recommender: Recommender, stages: Stages, scored: Scored, row: int) -> Standing:
    """Return how an item stands in the list of a block with a single request."""
    ranked, column = scored.ranked, int(scored.columns[0])
    rows, head, scores = ranked.candidates.rows[0], ranked.head[0], ranked.scores[0]
    real = rows >= 0
    request, intent = stages.filtered.requests[0], stages.filtered.intents[0]
    offset = 0.0
    if recommender.novelty is not None and recommender.ranker is not None and recommender.untrained[row]:
        events = recommender.arrays.statistics.count[None, [row]]
        offset = float(recommender.novelty.added(stages.novelty, events)[0, 0])
    fit = None
    if intent is not None:
        fit = float(recommender.texts.fit(intent, np.array([row], dtype=np.int32))[0])
    others = np.sort(scores[real & (rows != row)])[::-1]
    return Standing(
        candidates=int(real.sum()),
        head=float(head[column]),
        head_place=place_of(rows, head, row),
        p_click=float(ranked.probabilities[0, column, 0]),
        p_purchase=float(ranked.probabilities[0, column, 1]),
        novelty=offset,
        fit=fit,
        score=float(scores[column]),
        place=place_of(rows, scores, row),
        last=float(others[request.k - 1]) if len(others) >= request.k else None,
    )


def place_of(rows: IntArray, scores: FloatArray, row: int) -> int:
    """Return the place of a row by descending score, ties by row, from 1.

    Args:
        rows: candidates, padded with -1, [candidates].
        scores: of each, [candidates].
        row: one of the candidates.

    """
    own = scores[np.flatnonzero(rows == row)[0]]
    ahead = (rows >= 0) & ((scores > own) | ((scores == own) & (rows < row)))
    return int(ahead.sum()) + 1


def without_rows(ranked: Ranked, rows: IntArray) -> Ranked:
    """Return ranked candidates of a single query with some taken out."""
    gone = np.isin(ranked.candidates.rows, rows) & (ranked.candidates.rows >= 0)
    candidates = replace(ranked.candidates, rows=np.where(gone, -1, ranked.candidates.rows).astype(np.int32))
    scores = np.where(gone, np.float32(-np.inf), ranked.scores).astype(np.float32)
    return replace(ranked, candidates=candidates, scores=scores)
