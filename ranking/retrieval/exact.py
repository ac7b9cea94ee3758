"""Exact search among some rows, in this process."""

from __future__ import annotations

from typing import Final

import numpy as np

from features.data.dataset import FloatArray, IntArray, LongArray

CHUNK: Final = 1024
"""Vectors that an exact search fetches at a time, so that they stay in the CPU cache."""

PRODUCTS: Final = 1 << 25
"""Most products held at a time, 128 MiB; more queries are searched one part after the other."""


def no_results(queries: int, k: int) -> tuple[IntArray, FloatArray]:
    """Return empty results: rows of -1 and scores of -inf, [queries, k] each."""
    return np.full((queries, k), -1, dtype=np.int32), np.full((queries, k), -np.inf, dtype=np.float32)


def exact_among(
    vectors: FloatArray, queries: FloatArray, k: int, rows: np.ndarray
) -> tuple[IntArray, FloatArray]:
    """Return the best of some rows and their scores, each [queries, k], padded with -1 and -inf.

    Args:
        vectors: [items, dim].
        queries: [queries, dim].
        k: rows per query.
        rows: ascending rows to search, [rows].

    """
    found, scores = no_results(len(queries), k)
    if len(rows) == 0 or len(queries) == 0 or k == 0:
        return found, scores
    most = max(PRODUCTS // len(rows), 1)
    if len(queries) > most:
        for start in range(0, len(queries), most):
            part = slice(start, start + most)
            found[part], scores[part] = exact_among(vectors, queries[part], k, rows)
        return found, scores
    products = np.empty((len(queries), len(rows)), dtype=np.float32)
    for start in range(0, len(rows), CHUNK):
        part = slice(start, start + CHUNK)
        products[:, part] = queries @ vectors.take(rows[part], axis=0).T
    kept = min(k, len(rows))
    order = topk_columns(products, kept)
    found[:, :kept] = rows[order]
    scores[:, :kept] = np.take_along_axis(products, order, axis=1)
    return found, scores


def topk_columns(scores: FloatArray, k: int) -> LongArray:
    """Return the columns of the k largest scores of each row, [rows, k], best first, ties by column.

    The first k columns of a stable sort, by partial sorting; k is at least 1 and at most the width.
    """
    width = scores.shape[1]
    if width <= 4 * k:
        return np.argsort(-scores, axis=1, kind="stable")[:, :k]
    least = np.partition(scores, width - k, axis=1)[:, width - k]
    best = np.empty((len(scores), k), dtype=np.int64)
    for row, values in enumerate(scores):
        near = np.flatnonzero(values >= least[row])  # k, and ties with the last of them
        best[row] = near[np.argsort(-values[near], kind="stable")[:k]]
    return best
