"""Requests and results shared by the tests of sources and of the Recommender."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.data.dataset import Dataset, IntArray
from features.data.histories import HistoryBatch
from ranking.recommender import Recommender
from ranking.retrieval.limits import Limits
from ranking.types import Recommendation
from tests.synthetic import EMPTY, START, batch_at, history_of

ITEMS = 60


def no_limits(queries: int) -> Limits:
    return Limits(np.zeros(0, np.int64), [None] * queries)


def batch_of(dataset: Dataset, users: Sequence[int | None]) -> HistoryBatch:
    """Return the histories of users; None for a user without one."""
    return batch_at(START, [EMPTY if u is None else history_of(dataset, u) for u in users])


def propose(recommender: Recommender, batch: HistoryBatch, limits: Limits) -> dict[str, IntArray]:
    return recommender.retrieve(batch, limits, recommender.encode(batch)).proposals


def real(rows: IntArray) -> list[list[int]]:
    return [[int(r) for r in row if r >= 0] for row in rows]


def rows(answer: Recommendation) -> list[int]:
    return [item.row for item in answer.items]
