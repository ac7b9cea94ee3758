"""Feature groups that compare vectors: candidates with their user and with the newest items.

Fetching the vectors of some hundred candidates from memory costs more than the arithmetic on them. So each is
fetched once for everything that is compared with it, query by query: what a query's candidates are compared
with stays in the processor's cache, and a query's numbers do not depend on the queries beside it.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from features.candidates.contract import FeatureColumns, FeatureInputs, block
from features.data.dataset import FloatArray, IntArray, LongArray
from features.kernels.compiled import compiled
from features.kernels.prefetch import LINE, fetch

RECENT: Final = 10
"""Newest items of a history that candidates are compared with."""
AHEAD = 8
"""Candidates by which fetching is ahead of comparing."""
ABSENT: Final = -1
"""Column of what a space has no feature for."""
USER_SCORE_NAMES: Final = ("user_score", "user_score_below_best")
CO_PURCHASE_NAMES: Final = ("co_purchase_score", "co_purchase_below_best")
ITEM_NEAR_NAMES: Final = ("item_near_max", "item_near_mean", "item_near_last")
TEXT_NEAR_NAMES: Final = ("text_near_max", "text_near_mean", "text_near_last")
AFFINITY_NEAR_NAMES: Final = ("affinity_near_max", "affinity_near_mean", "affinity_near_last")
ZERO, ONE = np.float32(0.0), np.float32(1.0)


@compiled("contract", "reassoc", "nsz")
def _share(vector: FloatArray) -> np.float32:
    """Return one divided by a vector's length, which counts as never 0."""
    squares = ZERO
    for i in range(len(vector)):
        squares += vector[i] * vector[i]
    share: np.float32 = ONE / max(np.sqrt(squares), np.float32(1e-9))
    return share


@compiled("contract", "reassoc", "nsz")
def directions(items: IntArray, offsets: LongArray, recent: int, vectors: FloatArray) -> FloatArray:
    """Return the direction of the mean of what the newest events chose.

    Args:
        items: of the histories' events, oldest first, [total events].
        offsets: events of each query, [queries + 1].
        recent: how many of the newest events of each.
        vectors: of the items, [items, dim].

    Returns:
        [queries, dim] of unit length; zero without history.

    """
    sums = np.zeros((len(offsets) - 1, vectors.shape[1]), dtype=np.float32)
    for query in range(len(sums)):
        stop, total = offsets[query + 1], sums[query]
        first = max(offsets[query], stop - recent)
        for event in range(first, stop):
            for place in range(event + 1 if event > first else first, min(event + 2, stop)):
                for i in range(0, vectors.shape[1], LINE):
                    fetch(vectors, items[place], i)
            vector = vectors[items[event]]
            for i in range(len(total)):
                total[i] += vector[i]
        share = _share(total)
        for i in range(len(total)):
            total[i] *= share
    return sums


@compiled()
def _find_candidates(rows: IntArray, places: IntArray) -> int:
    """Write the places of a query's candidates, the last one three times more; return their number."""
    count = 0
    for place in range(len(rows)):
        if rows[place] >= 0:
            places[count] = place
            count += 1
    if count:
        places[count : count + 3] = places[count - 1]
    return count


@compiled("contract", "reassoc", "nsz")
def _write_similarities(
    rows: IntArray,
    vectors: FloatArray,
    users: FloatArray,
    items: IntArray,
    offsets: LongArray,
    recent: int,
    unit: bool,
    best: FloatArray,
    to: tuple[int, ...],
    features: FloatArray,
) -> None:
    """Compare candidates with users and the newest events of their histories.

    Args:
        rows: candidates, padded with -1, [queries, candidates].
        vectors: of the items, [items, dim].
        users: vectors [queries, dim].
        items: of the histories' events, oldest first, [total events].
        offsets: events of each query, [queries + 1].
        recent: newest events to compare with.
        unit: whether the vectors are of unit length (or zero).
        best: best product in the catalogue, [queries].
        to: columns of the inner product with the user's vector, of that less the best one, of the largest,
            mean and newest cosine; -1 leaves out a score, or all three cosines.
        features: written to, [queries, candidates, features]; what has no history keeps its cosines.

    """
    dim = vectors.shape[1]
    score, below_best, near_max, near_mean, near_last = to
    # What candidates are compared with: the user, the events from the newest on, zeros to an even number.
    compared = np.empty((recent + 2, dim), dtype=np.float32)
    shares = np.empty(recent + 2, dtype=np.float32)  # one divided by their lengths
    sums = np.empty((4, recent + 2), dtype=np.float32)
    places = np.empty(rows.shape[1] + 3, dtype=np.int64)
    for query in range(len(rows)):
        events = min(recent, offsets[query + 1] - offsets[query]) if near_max >= 0 else 0
        compared[:] = 0.0
        if score >= 0:
            compared[0] = users[query]
        for event in range(events):
            compared[1 + event] = vectors[items[offsets[query + 1] - 1 - event]]
            shares[1 + event] = ONE if unit else _share(compared[1 + event])
        count = _find_candidates(rows[query], places)
        for first in range(0, count, 4):
            for place in places[first + AHEAD : min(first + AHEAD + 4, count)]:
                for i in range(0, dim, LINE):
                    fetch(vectors, rows[query, place], i)
            group = places[first : first + 4]
            a, b = vectors[rows[query, group[0]]], vectors[rows[query, group[1]]]
            c, d = vectors[rows[query, group[2]]], vectors[rows[query, group[3]]]
            for n in range(0, 1 + events, 2):
                a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = ZERO
                for i in range(dim):
                    x, y = compared[n, i], compared[n + 1, i]
                    a0 += a[i] * x
                    a1 += a[i] * y
                    b0 += b[i] * x
                    b1 += b[i] * y
                    c0 += c[i] * x
                    c1 += c[i] * y
                    d0 += d[i] * x
                    d1 += d[i] * y
                sums[0, n], sums[0, n + 1], sums[1, n], sums[1, n + 1] = a0, a1, b0, b1
                sums[2, n], sums[2, n + 1], sums[3, n], sums[3, n + 1] = c0, c1, d0, d1
            for n in range(min(4, count - first)):
                values = features[query, group[n]]
                if score >= 0:
                    values[score] = sums[n, 0]
                if below_best >= 0:
                    values[below_best] = sums[n, 0] - best[query]
                if events:
                    share = ONE if unit else _share(vectors[rows[query, group[n]]])
                    largest, total = -np.float32(np.inf), ZERO
                    for event in range(events, 0, -1):
                        cosine = sums[n, event] * (shares[event] * share)
                        largest = max(largest, cosine)
                        total += cosine
                    values[near_max] = largest
                    values[near_mean] = total / np.float32(events)
                    values[near_last] = sums[n, 1] * (shares[1] * share)


def _compare(
    inputs: FeatureInputs,
    vectors: FloatArray,
    users: FloatArray,
    best: FloatArray,
    unit: bool,
    to: tuple[int, ...],
    features: FloatArray,
) -> None:
    batch = inputs.batch
    _write_similarities(
        inputs.rows, vectors, users, batch.items, batch.offsets, RECENT, unit, best, to, features
    )


def write_user_similarity(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
    """Compare candidates in the space of the towers."""
    to = columns.of(*USER_SCORE_NAMES, *ITEM_NEAR_NAMES)
    _compare(inputs, inputs.arrays.item_vectors, inputs.users.tower, inputs.best[0], False, to, features)


def write_co_purchase(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
    """Compare candidates with the user in the space of the co-purchase factors."""
    to = (*columns.of(*CO_PURCHASE_NAMES), ABSENT, ABSENT, ABSENT)
    _compare(inputs, inputs.arrays.factor_vectors, inputs.users.factors, inputs.best[1], True, to, features)


def write_text_similarity(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
    """Compare candidates with the newest items by their texts."""
    to = (ABSENT, ABSENT, *columns.of(*TEXT_NEAR_NAMES))
    _compare(inputs, inputs.arrays.text_units, inputs.users.tower, inputs.best[0], True, to, features)


def write_affinity(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
    """Compare candidates in the space where items that go together lie close."""
    to = (columns["affinity_score"], ABSENT, *columns.of(*AFFINITY_NEAR_NAMES))
    _compare(inputs, inputs.arrays.affinity_units, inputs.users.affinity, inputs.best[0], True, to, features)


USER_SCORES: Final = block(write_user_similarity, *USER_SCORE_NAMES)
ITEM_NEAR: Final = block(write_user_similarity, *ITEM_NEAR_NAMES)
CO_PURCHASE: Final = block(write_co_purchase, *CO_PURCHASE_NAMES)
TEXT_NEAR: Final = block(write_text_similarity, *TEXT_NEAR_NAMES)
AFFINITY: Final = block(write_affinity, "affinity_score", *AFFINITY_NEAR_NAMES)
