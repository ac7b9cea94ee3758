"""Free-text search: the items that read like the words, those that suit the shopper a little further up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from features.candidates import SOURCES
from features.dataset import FloatArray, IntArray
from ranking.explain import explain
from ranking.recommender import Recommender
from ranking.requests import Recommendation, Recommended, Request
from ranking.timing import timed

POOL = 200
"""Nearest texts among which taste may change the order; more where a longer list is asked for."""
TASTE = 0.1
"""Largest change of a score by taste. Cosines of texts that fit a query equally well differ by about as much,
so an item overtakes only such as fit the words hardly better than itself."""
_INTENT = 1 << SOURCES.index("intent")


def search(recommender: Recommender, requests: Sequence[Request]) -> list[Recommendation]:
    """Find items by words; `Request.intent` is the vector of what is looked for.

    The score of an item is the cosine of its text and the words. With a history, the match of the item and
    the user vector is standardised over the nearest texts, cut to -1..1, and adds `TASTE` times that.

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
    depth = min(max(POOL, 2 * request.k), recommender.items)
    found, cosines = recommender.similar(request.intent[None, :], depth, exclude, request.allowed)
    rows = found[0][found[0] >= 0]
    scores = cosines[0][: len(rows)] + TASTE * _taste(recommender, rows, user)
    order = np.lexsort((rows, -scores))[: request.k]
    items = []
    for place in order:
        row = int(rows[place])
        reasons = explain(row, _INTENT, request.history, recommender.arrays) if request.explain else ()
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
