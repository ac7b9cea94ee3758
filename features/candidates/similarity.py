"""Feature groups of vector similarity: candidates to their user and to the newest items.

Loading the vectors of some hundred candidates from memory costs more than the arithmetic on them. So each is
loaded once for all its products, query by query: the query's own vectors stay in the processor's cache, and
results do not depend on other queries.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from features.candidates.contract import FeatureColumns, FeatureInputs, block
from features.data.dataset import FloatArray, IntArray, LongArray
from features.kernels.compiled import compiled
from features.kernels.prefetch import LINE, fetch

RECENT: Final = 10
"""Newest items of a history that candidates are references with."""
AHEAD = 8
"""Prefetch distance, in candidates."""
ABSENT: Final = -1
"""Column of a feature that a space does not have."""
TASTE_LABEL: Final = "fit to the shopper's taste"
USER_SCORE_NAMES: Final = ("user_score", "user_score_below_best")
CO_PURCHASE_NAMES: Final = ("co_purchase_score", "co_purchase_below_best")
ITEM_NEAR_NAMES: Final = ("item_near_max", "item_near_mean", "item_near_last")
TEXT_NEAR_NAMES: Final = ("text_near_max", "text_near_mean", "text_near_last")
AFFINITY_NEAR_NAMES: Final = ("affinity_near_max", "affinity_near_mean", "affinity_near_last")
ZERO, ONE = np.float32(0.0), np.float32(1.0)


@compiled("contract", "reassoc", "nsz")
def _inverse_length(vector: FloatArray) -> np.float32:
    """Return the inverse of a vector's length, bounded for a zero vector."""
    squares = ZERO
    for i in range(len(vector)):
        squares += vector[i] * vector[i]
    share: np.float32 = ONE / max(np.sqrt(squares), np.float32(1e-9))
    return share


@compiled("contract", "reassoc", "nsz")
def mean_directions(items: IntArray, offsets: LongArray, recent: int, vectors: FloatArray) -> FloatArray:
    """Return the normalised mean of the newest events' item vectors.

    Args:
        items: of the histories' events, oldest first, [total events].
        offsets: events of each query, [queries + 1].
        recent: number of newest events.
        vectors: of the items, [items, dim].

    Returns:
        [queries, dim] of unit length; zero without history.

    """
    sums = np.zeros((len(offsets) - 1, vectors.shape[1]), dtype=np.float32)
    for query in range(len(sums)):
        stop, total = offsets[query + 1], sums[query]
        first = max(offsets[query], stop - recent)
        for event in range(first, stop):
            for index in range(event + 1 if event > first else first, min(event + 2, stop)):
                for i in range(0, vectors.shape[1], LINE):
                    fetch(vectors, items[index], i)
            vector = vectors[items[event]]
            for i in range(len(total)):
                total[i] += vector[i]
        share = _inverse_length(total)
        for i in range(len(total)):
            total[i] *= share
    return sums


@compiled()
def _find_candidates(rows: IntArray, indices: IntArray) -> int:
    """Write the indices of a query's candidates, the last repeated three times; return their number."""
    count = 0
    for index in range(len(rows)):
        if rows[index] >= 0:
            indices[count] = index
            count += 1
    if count:
        indices[count : count + 3] = indices[count - 1]
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
    """Write the products of candidates with users and cosines with the newest events.

    Args:
        rows: candidates, padded with -1, [queries, candidates].
        vectors: of the items, [items, dim].
        users: vectors [queries, dim].
        items: of the histories' events, oldest first, [total events].
        offsets: events of each query, [queries + 1].
        recent: newest events to compare with.
        unit: whether the vectors are of unit length (or zero).
        best: best product in the catalogue, [queries].
        to: columns of the inner product with the user's vector, its difference from the best one, and the
            largest, mean and newest cosine; -1 leaves out a score, or all three cosines.
        features: written to, [queries, candidates, features]; cosines stay as they are without history.

    """
    dim = vectors.shape[1]
    score, below_best, near_max, near_mean, near_last = to
    # The user, the events from the newest on, and zeros up to an even number.
    references = np.empty((recent + 2, dim), dtype=np.float32)
    inverse_lengths = np.empty(recent + 2, dtype=np.float32)  # inverse lengths
    sums = np.empty((4, recent + 2), dtype=np.float32)
    indices = np.empty(rows.shape[1] + 3, dtype=np.int64)
    for query in range(len(rows)):
        events = min(recent, offsets[query + 1] - offsets[query]) if near_max >= 0 else 0
        references[:] = 0.0
        if score >= 0:
            references[0] = users[query]
        for event in range(events):
            references[1 + event] = vectors[items[offsets[query + 1] - 1 - event]]
            inverse_lengths[1 + event] = ONE if unit else _inverse_length(references[1 + event])
        count = _find_candidates(rows[query], indices)
        for first in range(0, count, 4):
            for index in indices[first + AHEAD : min(first + AHEAD + 4, count)]:
                for i in range(0, dim, LINE):
                    fetch(vectors, rows[query, index], i)
            group = indices[first : first + 4]
            a, b = vectors[rows[query, group[0]]], vectors[rows[query, group[1]]]
            c, d = vectors[rows[query, group[2]]], vectors[rows[query, group[3]]]
            for n in range(0, 1 + events, 2):
                a0 = a1 = b0 = b1 = c0 = c1 = d0 = d1 = ZERO
                for i in range(dim):
                    x, y = references[n, i], references[n + 1, i]
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
                    share = ONE if unit else _inverse_length(vectors[rows[query, group[n]]])
                    largest, total = -np.float32(np.inf), ZERO
                    for event in range(events, 0, -1):
                        cosine = sums[n, event] * (inverse_lengths[event] * share)
                        largest = max(largest, cosine)
                        total += cosine
                    values[near_max] = largest
                    values[near_mean] = total / np.float32(events)
                    values[near_last] = sums[n, 1] * (inverse_lengths[1] * share)


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
    """Write the similarities in the space of the towers."""
    to = columns.of(*USER_SCORE_NAMES, *ITEM_NEAR_NAMES)
    _compare(inputs, inputs.arrays.item_vectors, inputs.users.tower, inputs.best[0], False, to, features)


def write_co_purchase(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
    """Write the scores of the co-purchase factors."""
    to = (*columns.of(*CO_PURCHASE_NAMES), ABSENT, ABSENT, ABSENT)
    _compare(inputs, inputs.arrays.factor_vectors, inputs.users.factors, inputs.best[1], True, to, features)


def write_text_similarity(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
    """Write the similarities of the texts to the newest items'."""
    to = (ABSENT, ABSENT, *columns.of(*TEXT_NEAR_NAMES))
    _compare(inputs, inputs.arrays.text_units, inputs.users.tower, inputs.best[0], True, to, features)


def write_affinity(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
    """Write the similarities in the space of the affinity vectors."""
    to = (columns["affinity_score"], ABSENT, *columns.of(*AFFINITY_NEAR_NAMES))
    _compare(inputs, inputs.arrays.affinity_units, inputs.users.affinity, inputs.best[0], True, to, features)


USER_SCORES: Final = block(write_user_similarity, *USER_SCORE_NAMES, label=TASTE_LABEL)
ITEM_NEAR: Final = block(write_user_similarity, *ITEM_NEAR_NAMES, label=TASTE_LABEL)
CO_PURCHASE: Final = block(
    write_co_purchase, *CO_PURCHASE_NAMES, label="what shoppers with similar histories bought"
)
TEXT_NEAR: Final = block(write_text_similarity, *TEXT_NEAR_NAMES, label="a text like those of recent items")
AFFINITY: Final = block(
    write_affinity, "affinity_score", *AFFINITY_NEAR_NAMES, label="a text that goes with recent items"
)
