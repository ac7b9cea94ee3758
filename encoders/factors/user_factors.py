"""Solving user vectors for fixed item factors, one history at a time so that its factors stay in cache.

The normal equations of implicit matrix factorisation, (G + V' (C - 1) V) u = V' c, have one unknown per
dimension. Conjugate gradients (Hestenes and Stiefel, 1952; for this model Takács et al., RecSys 2011) take
only products with V, the factors of the history's items. The inverse of G, which is folded into their duals,
is the preconditioner: the preconditioned matrix differs from the identity in as many directions as the
history has items, and in few of them by much. A few rounds converge to float32 precision.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from features.data.dataset import FloatArray, IntArray, LongArray
from features.kernels.compiled import compiled
from features.kernels.hash_table import cell_of, empty_table
from features.kernels.prefetch import LINE, fetch

Doubles = npt.NDArray[np.float64]
ROUNDS = 200
"""Most rounds. Histories of real shops take 5 to 30."""
EXACT = 1e-7
"""Tolerance: residual, as a share of the first one, at which iteration stops."""
ZERO = np.float32(0.0)
_FAST = ("contract", "reassoc", "nsz")
"""LLVM flags that let sums be reordered; the order is the same for every history."""


@compiled(*_FAST)
def _combine(table: FloatArray, rows: IntArray, weights: Doubles, sums: FloatArray) -> None:
    """Write the sum of a table's rows [rows, dim], each times its weight, [dim]."""
    whole = len(rows) - len(rows) % 4
    sums[:] = ZERO
    for n in range(0, whole, 4):
        a, b, c, d = table[rows[n]], table[rows[n + 1]], table[rows[n + 2]], table[rows[n + 3]]
        w, x = np.float32(weights[n]), np.float32(weights[n + 1])
        y, z = np.float32(weights[n + 2]), np.float32(weights[n + 3])
        for i in range(len(sums)):
            sums[i] += w * a[i] + x * b[i] + y * c[i] + z * d[i]
    for n in range(whole, len(rows)):
        a, w = table[rows[n]], np.float32(weights[n])
        for i in range(len(sums)):
            sums[i] += w * a[i]


@compiled(*_FAST)
def _multiply(table: FloatArray, rows: IntArray, vector: FloatArray, products: Doubles) -> None:
    """Write the products of a table's rows [rows, dim] and a vector [dim], [rows]."""
    whole = len(rows) - len(rows) % 4
    for n in range(0, whole, 4):
        a, b, c, d = table[rows[n]], table[rows[n + 1]], table[rows[n + 2]], table[rows[n + 3]]
        w = x = y = z = ZERO
        for i in range(len(vector)):
            w += a[i] * vector[i]
            x += b[i] * vector[i]
            y += c[i] * vector[i]
            z += d[i] * vector[i]
        products[n], products[n + 1], products[n + 2], products[n + 3] = w, x, y, z
    for n in range(whole, len(rows)):
        a, w = table[rows[n]], ZERO
        for i in range(len(vector)):
            w += a[i] * vector[i]
        products[n] = w


@compiled(*_FAST)
def _dot(left: Doubles, right: Doubles) -> float:
    """Return the inner product of two vectors."""
    total = 0.0
    for n in range(len(left)):
        total += left[n] * right[n]
    return total


@compiled(*_FAST)
def _collect(
    items: IntArray,
    kinds: npt.NDArray[np.int8],
    kind_weights: FloatArray,
    vectors: FloatArray,
    dual: FloatArray,
    keys: IntArray,
    indices: IntArray,
    rows: IntArray,
    weights: Doubles,
) -> int:
    """Write a history's distinct items and summed weights, prefetch their factors; return their number.

    Args:
        items: of the events, [events].
        kinds: [events]
        kind_weights: [kinds]; events of kinds without weight are left out.
        vectors: [items, dim]
        dual: [items, dim]
        keys: a table for as many keys as there are events, see `features.kernels.hash_table`, [cells].
        indices: written to: index of each key among the distinct items, [cells].
        rows: the distinct items, [events].
        weights: of each of them, [events].

    """
    keys[:] = -1
    count = 0
    for event in range(len(items)):
        weight = kind_weights[kinds[event]]
        if weight > ZERO:
            item = items[event]
            cell = cell_of(keys, item)
            if keys[cell] < 0:
                keys[cell], indices[cell] = item, count
                rows[count], weights[count] = item, 0.0
                count += 1
                for i in range(0, vectors.shape[1], LINE):
                    fetch(vectors, item, i)
                    fetch(dual, item, i)
            weights[indices[cell]] += weight
    return count


@compiled(*_FAST)
def _solve(
    vectors: FloatArray, dual: FloatArray, rows: IntArray, confidence: Doubles, user: FloatArray
) -> None:
    """Write the vector [dim] of a history with these items [rows] and confidences [rows].

    Residuals are combinations of the items' vectors, and the same ones of their duals once preconditioned.
    They are represented by the items' weights, and so are the directions.
    """
    residual = confidence.copy()
    direction, ahead = np.zeros(len(rows)), np.zeros(len(rows))
    products, change = np.empty(len(rows)), np.empty(len(rows))
    step, path = np.empty(len(user), dtype=np.float32), np.zeros(len(user), dtype=np.float32)
    user[:] = ZERO
    first = before = 0.0
    for number in range(ROUNDS):
        _combine(dual, rows, residual, step)
        _multiply(vectors, rows, step, products)
        left = _dot(residual, products)
        if number == 0:
            first = before = left
        if left <= EXACT * EXACT * first:
            break
        turn = left / before if number > 0 else 0.0
        before = left
        for i in range(len(user)):
            path[i] = step[i] + np.float32(turn) * path[i]
        for n in range(len(rows)):
            direction[n] = residual[n] + turn * direction[n]
            ahead[n] = products[n] + turn * ahead[n]  # vectors times path
            change[n] = direction[n] + (confidence[n] - 1.0) * ahead[n]
        curvature = _dot(ahead, change)
        if curvature <= 0.0:
            break
        length = left / curvature
        for i in range(len(user)):
            user[i] += np.float32(length) * path[i]
        for n in range(len(rows)):
            residual[n] -= length * change[n]


@compiled(*_FAST)
def solve_user_factors(
    items: IntArray,
    kinds: npt.NDArray[np.int8],
    offsets: LongArray,
    kind_weights: FloatArray,
    confidence: float,
    longest: int,
    vectors: FloatArray,
    dual: FloatArray,
    users: FloatArray,
) -> None:
    """Solve a vector per history.

    Args:
        items: of the events, oldest first, [total events].
        kinds: [total events]
        offsets: events of each history, [histories + 1].
        kind_weights: weight of each kind, [kinds].
        confidence: weight of an observed event against an absent one.
        longest: most recent events that are read.
        vectors: item factors, [items, dim].
        dual: `vectors` times the inverse of (their Gram matrix + L2), [items, dim].
        users: written to, [histories, dim].

    """
    size = 0
    for history in range(len(users)):
        size = max(size, min(offsets[history + 1] - offsets[history], longest))
    keys = empty_table(size)
    indices = np.empty(len(keys), dtype=np.int32)
    rows, weights = np.empty(size, dtype=np.int32), np.empty(size, dtype=np.float64)
    for history in range(len(users)):
        stop = offsets[history + 1]
        start = max(offsets[history], stop - longest)
        count = _collect(
            items[start:stop], kinds[start:stop], kind_weights, vectors, dual, keys, indices, rows, weights
        )
        for n in range(count):
            weights[n] = confidence * math.log1p(weights[n])
        _solve(vectors, dual, rows[:count], weights[:count], users[history])
