"""Free-text search: the items that fit the words, of which taste orders those that fit about equally well."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.data.dataset import FloatArray, IntArray
from ranking.reasons import explain
from ranking.recommender import Recommender
from ranking.stage_timing import timed
from ranking.types import Recommendation, Recommended, Request
from ranking.words.text_match import POOL

TASTE = 0.05
"""Largest change of a score by taste: an item overtakes only such as fit the words hardly better."""
_INTENT = ("intent",)


def search(recommender: Recommender, requests: Sequence[Request]) -> list[Recommendation]:
    """Find items by words: `Request.said`, of which `Request.intent` is the vector.

    The score of an item is how well it fits (`TextMatch.fit`). With a history, the match
    of the item and the user vector is standardised over the best items, cut to -1..1, and adds `TASTE` times
    that. Of equal items the more popular one comes first.

    Args:
        recommender: knows the items.
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
        raise ValueError("a search needs the vector of its words")
    exclude = request.exclude
    if request.exclude_seen:
        exclude = np.union1d(exclude, request.history.items).astype(np.int32)
    texts = recommender.texts
    query = texts.query(request.intent, request.said)
    rows, fit = texts.best(query, max(POOL, 2 * request.k), exclude, request.allowed)
    scores = np.round(fit + TASTE * _taste(recommender, rows, user), 4)
    order = np.lexsort((rows, -texts.popularity[rows], -scores))[: request.k]
    matches = texts.matches(query, rows[order]).tolist() if request.explain else [False] * len(order)
    evidence = recommender.evidence
    items = []
    for place, fits in zip(order, matches, strict=True):
        row = int(rows[place])
        reasons = explain(row, _INTENT, request.history, evidence, fits) if request.explain else ()
        items.append(Recommended(row, float(scores[place]), float("nan"), float("nan"), "intent", reasons))
    known = len(request.history.items) > 0
    return Recommendation(tuple(items), "none" if known and recommender.towers is not None else "text_only")


def _taste(recommender: Recommender, rows: IntArray, user: FloatArray) -> FloatArray:
    """Return how well items suit the shopper, -1 to 1, [rows]; 0 where nothing is known or all suit alike."""
    match: FloatArray = recommender.arrays.item_vectors[rows] @ user
    spread = float(match.std()) if len(match) else 0.0
    if spread < 1e-9:
        return np.zeros(len(rows), dtype=np.float32)
    taste: FloatArray = np.clip((match - match.mean()) / spread, -1.0, 1.0).astype(np.float32)
    return taste
