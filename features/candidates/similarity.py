"""How like each candidate is to its user's vector and to what the user chose last, in one space of vectors.

Fetching the vectors of some hundred candidates from memory costs more than the arithmetic on them. So each is
fetched once for everything that is compared with it, query by query: what a query's candidates are compared
with stays in the processor's cache, and a query's numbers do not depend on the queries beside it.
"""

from __future__ import annotations

import numpy as np

from features.data.dataset import FloatArray, IntArray, LongArray
from features.kernels.compiled import compiled
from features.kernels.prefetch import LINE, fetch

AHEAD = 8
"""Candidates by which fetching is ahead of comparing."""
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
def write_similarities(
    rows: IntArray,
    vectors: FloatArray,
    users: FloatArray,
    items: IntArray,
    offsets: LongArray,
    recent: int,
    unit: bool,
    best: FloatArray,
    columns: tuple[int, int, int],
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
        columns: of the inner product with the user's vector; of what that is more than the best; the first of
            three: largest, mean and newest cosine. -1 leaves one out.
        features: written to, [queries, candidates, features]; what has no history keeps its cosines.

    """
    dim = vectors.shape[1]
    product, below, cosines = columns
    # What candidates are compared with: the user, the events from the newest on, zeros to an even number.
    compared = np.empty((recent + 2, dim), dtype=np.float32)
    shares = np.empty(recent + 2, dtype=np.float32)  # one divided by their lengths
    sums = np.empty((4, recent + 2), dtype=np.float32)
    places = np.empty(rows.shape[1] + 3, dtype=np.int64)
    for query in range(len(rows)):
        events = min(recent, offsets[query + 1] - offsets[query]) if cosines >= 0 else 0
        compared[:] = 0.0
        if product >= 0:
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
                if product >= 0:
                    values[product] = sums[n, 0]
                if below >= 0:
                    values[below] = sums[n, 0] - best[query]
                if events:
                    share = ONE if unit else _share(vectors[rows[query, group[n]]])
                    largest, total = -np.float32(np.inf), ZERO
                    for event in range(events, 0, -1):
                        cosine = sums[n, event] * (shares[event] * share)
                        largest = max(largest, cosine)
                        total += cosine
                    values[cosines] = largest
                    values[cosines + 1] = total / np.float32(events)
                    values[cosines + 2] = sums[n, 1] * (shares[1] * share)
