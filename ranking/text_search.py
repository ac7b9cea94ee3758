"""Free-text search: items by relevance to the query, near ties broken by the user's taste."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.data.dataset import FloatArray, IntArray
from ranking.reasons import explain
from ranking.recommender import Recommender
from ranking.retrieval.unavailable import collecting_missed
from ranking.stage_timing import timed
from ranking.types import Recommendation, RecommendedItem, Request
from ranking.words.text_match import POOL

TASTE = 0.05
"""Largest change of a score by taste, so that it only reorders items of nearly equal relevance."""
_INTENT = ("intent",)


def search(recommender: Recommender, requests: Sequence[Request]) -> list[Recommendation]:
    """Return the items that match `Request.query_text`, whose vector is `Request.intent`.

    The score of an item is its relevance (`TextMatch.fit`). With a history, the inner product of item and
    user vector is standardised over the best items, clipped to -1..1 and added with weight `TASTE`. Ties go
    to the more popular item.

    Args:
        recommender: the model.
        requests: each with an intent; `diversity` is not used.

    Returns:
        A list per request, best first, with the source `intent` and without probabilities.

    """
    with timed("user_encoding"):
        users = recommender.user_vectors(recommender.histories(requests))
    with timed("candidates"):
        return [_one(recommender, request, user) for request, user in zip(requests, users, strict=True)]


def _one(recommender: Recommender, request: Request, user: FloatArray) -> Recommendation:
    if request.intent is None:
        raise ValueError("a search needs the vector of its query")
    exclude = request.exclude
    if request.exclude_seen:
        exclude = np.union1d(exclude, request.history.items).astype(np.int32)
    texts = recommender.texts
    query = texts.query(request.intent, request.query_text)
    with collecting_missed() as missed:
        rows, fit = texts.best(query, max(POOL, 2 * request.k), exclude, request.allowed)
    scores = np.round(fit + TASTE * _taste(recommender, rows, user), 4)
    order = np.lexsort((rows, -texts.popularity[rows], -scores))[: request.k]
    matches = texts.matches(query, rows[order]).tolist() if request.explain else [False] * len(order)
    evidence = recommender.evidence
    items = []
    for position, fits in zip(order, matches, strict=True):
        row = int(rows[position])
        reasons = explain(row, _INTENT, request.history, evidence, fits) if request.explain else ()
        items.append(
            RecommendedItem(row, float(scores[position]), float("nan"), float("nan"), "intent", reasons)
        )
    known = len(request.history.items) > 0
    level = "none" if known and recommender.towers is not None else "text_only"
    return Recommendation(tuple(items), "candidates_unavailable" if missed else level)


def _taste(recommender: Recommender, rows: IntArray, user: FloatArray) -> FloatArray:
    """Return the user's taste for items, -1 to 1, [rows]; 0 without a history or where all are equal."""
    match: FloatArray = recommender.arrays.item_vectors[rows] @ user
    spread = float(match.std()) if len(match) else 0.0
    if spread < 1e-9:
        return np.zeros(len(rows), dtype=np.float32)
    taste: FloatArray = np.clip((match - match.mean()) / spread, -1.0, 1.0).astype(np.float32)
    return taste
