"""Inference of a trained ranking head as one compiled pass over the candidates.

For a network this small, call overhead dominates: torch or numpy would take some thirty calls, each of which
reads and writes all activations and may release the GIL. Here a tile of candidates goes through the whole
network while it is in the CPU cache. A candidate's scores do not depend on its position or on the other
candidates, which BLAS does not guarantee.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from features.data.dataset import FloatArray, LongArray
from features.kernels.compiled import compiled

TILE = 64
"""Candidates that go through the network together."""
CLIP = np.float32(4.0)
"""Bound that standardised features are clipped to."""
ZERO, ONE = np.float32(0.0), np.float32(1.0)
_FAST = ("contract", "reassoc", "nsz", "nnan")
"""Fast-math flags that reorder sums, equally for every candidate."""


class CompiledRanker(NamedTuple):
    """Weights; layer widths are zero-padded to multiples of four, so that loops have no remainder."""

    knots: FloatArray
    """[features, knots] left end of each interval of the quantile scale; the last is the end."""
    slopes: FloatArray
    """[features, knots] one divided by the interval's width; 0 for the last."""
    shift: FloatArray
    """[features]"""
    steepness: FloatArray
    """[features] one divided by the standard deviation."""
    sizes: LongArray
    """[layers + 1] width of the inputs and of every hidden layer."""
    weights: FloatArray
    """Of the hidden layers, each [width, width before], of heads and of direct, each [4, width before]."""
    biases: FloatArray
    """Of the hidden layers, then of the heads."""

    @classmethod
    def of(
        cls,
        knots: FloatArray,
        shift: FloatArray,
        width: FloatArray,
        hidden: Sequence[tuple[FloatArray, FloatArray]],
        heads: tuple[FloatArray, FloatArray],
        direct: FloatArray,
    ) -> CompiledRanker:
        """Return the layout of weights and biases in torch's shapes.

        Args:
            knots: [features, knots].
            shift: [features] mean that standardisation subtracts.
            width: [features] standard deviation that it divides by.
            hidden: weights [units, units before] and biases [units] of each hidden layer.
            heads: weights [3, units] and biases [3].
            direct: weights from the inputs to the logits, [3, inputs].

        """
        layers = [*hidden, heads, (direct, np.zeros(0, dtype=np.float32))]
        blocks = [_padded(weights) for weights, _ in layers]
        return cls(
            np.array(knots),
            np.pad(1.0 / np.diff(knots), ((0, 0), (0, 1))),
            np.array(shift),
            1.0 / width,
            np.array([block.shape[1] for block in blocks[:-1]], dtype=np.int64),
            np.concatenate([block.ravel() for block in blocks]),
            np.concatenate([_padded(biases) for _, biases in layers]),
        )

    def logits(self, features: FloatArray) -> FloatArray:
        """Return raw logits [..., 3] (rank, click, purchase given a click) of features [..., features]."""
        flat = np.ascontiguousarray(features.reshape(-1, features.shape[-1]))
        logits = np.empty((len(flat), 3), dtype=np.float32)
        _forward(flat, *self, logits)
        return logits.reshape(*features.shape[:-1], 3)


def _padded(array: FloatArray) -> FloatArray:
    """Zero-pad every axis to a multiple of four."""
    return np.pad(array, [(0, -size % 4) for size in array.shape])


@compiled(*_FAST)
def _add_product(weights: FloatArray, inputs: FloatArray, sums: FloatArray) -> None:
    """Add weights [units, inputs] times inputs [inputs, TILE] to sums [units, TILE].

    In blocks of four by four: each load is used four times, and sums are stored a fourth as often.
    """
    for u in range(0, len(weights), 4):
        a, b, c, d = weights[u], weights[u + 1], weights[u + 2], weights[u + 3]
        for i in range(0, len(inputs), 4):
            a0, a1, a2, a3 = a[i], a[i + 1], a[i + 2], a[i + 3]
            b0, b1, b2, b3 = b[i], b[i + 1], b[i + 2], b[i + 3]
            c0, c1, c2, c3 = c[i], c[i + 1], c[i + 2], c[i + 3]
            d0, d1, d2, d3 = d[i], d[i + 1], d[i + 2], d[i + 3]
            for t in range(TILE):
                x0, x1, x2, x3 = inputs[i, t], inputs[i + 1, t], inputs[i + 2, t], inputs[i + 3, t]
                sums[u, t] += a0 * x0 + a1 * x1 + a2 * x2 + a3 * x3
                sums[u + 1, t] += b0 * x0 + b1 * x1 + b2 * x2 + b3 * x3
                sums[u + 2, t] += c0 * x0 + c1 * x1 + c2 * x2 + c3 * x3
                sums[u + 3, t] += d0 * x0 + d1 * x1 + d2 * x2 + d3 * x3


@compiled(*_FAST)
def _scale(values: FloatArray, knots: FloatArray, slopes: FloatArray, scaled: FloatArray) -> None:
    """Map values of one feature [TILE] onto -1..1 by its quantiles.

    Adds up the filled share of every interval: more arithmetic than a binary search, but without branches, so
    that it vectorises.
    """
    scaled[:] = 0.0
    for k in range(0, len(knots), 4):
        a, b, c, d = knots[k], knots[k + 1], knots[k + 2], knots[k + 3]
        e, f, g, h = slopes[k], slopes[k + 1], slopes[k + 2], slopes[k + 3]
        for t in range(TILE):
            x = values[t]
            scaled[t] += (min(max((x - a) * e, ZERO), ONE) + min(max((x - b) * f, ZERO), ONE)) + (
                min(max((x - c) * g, ZERO), ONE) + min(max((x - d) * h, ZERO), ONE)
            )
    step = np.float32(2.0 / (len(knots) - 1))
    for t in range(TILE):
        scaled[t] = scaled[t] * step - ONE


@compiled(*_FAST)
def _silu(sums: FloatArray) -> None:
    """Replace sums [units, TILE] by x * sigmoid(x).

    By Eigen's rational approximation of tanh, to within a few ulp, because the C library's exponential does
    not vectorise.
    """
    flat = sums.reshape(-1)
    for n in range(len(flat)):
        x = np.float32(0.5) * flat[n]
        z = min(max(x, np.float32(-7.9053111)), np.float32(7.9053111))
        q = z * z
        p = np.float32(-2.76076847742355e-16)
        p = p * q + np.float32(2.00018790482477e-13)
        p = p * q + np.float32(-8.60467152213735e-11)
        p = p * q + np.float32(5.12229709037114e-08)
        p = p * q + np.float32(1.48572235717979e-05)
        p = p * q + np.float32(6.37261928875436e-04)
        p = p * q + np.float32(4.89352455891786e-03)
        r = np.float32(1.19825839466702e-06)
        r = r * q + np.float32(1.18534705686654e-04)
        r = r * q + np.float32(2.26843463243900e-03)
        r = r * q + np.float32(4.89352518554385e-03)
        flat[n] = x + x * (z * p / r)


@compiled(*_FAST)
def _forward(
    features: FloatArray,
    knots: FloatArray,
    slopes: FloatArray,
    shift: FloatArray,
    steepness: FloatArray,
    sizes: LongArray,
    weights: FloatArray,
    biases: FloatArray,
    logits: FloatArray,
) -> None:
    """Write the logits [rows, 3] of features [rows, features]; the rest as in `CompiledRanker`."""
    rows, columns = features.shape
    values = np.zeros((columns, TILE), dtype=np.float32)
    inputs = np.zeros((sizes[0], TILE), dtype=np.float32)
    outputs = np.empty((4, TILE), dtype=np.float32)
    widest = np.max(sizes)
    even, odd = np.empty((widest, TILE), dtype=np.float32), np.empty((widest, TILE), dtype=np.float32)
    for start in range(0, rows, TILE):
        count = min(TILE, rows - start)
        for t in range(count):
            for f in range(columns):
                values[f, t] = features[start + t, f]
        for f in range(columns):
            _scale(values[f], knots[f], slopes[f], inputs[f])
            for t in range(TILE):
                inputs[columns + f, t] = min(max((values[f, t] - shift[f]) * steepness[f], -CLIP), CLIP)
        read, bias = 0, 0
        before = inputs
        for layer in range(1, len(sizes)):
            units, width = sizes[layer], sizes[layer - 1]
            sums = (odd if layer % 2 else even)[:units]
            for u in range(units):
                sums[u] = biases[bias + u]
            _add_product(weights[read : read + units * width].reshape(units, width), before, sums)
            _silu(sums)
            read, bias, before = read + units * width, bias + units, sums
        width = sizes[-1]
        for u in range(4):
            outputs[u] = biases[bias + u]
        _add_product(weights[read : read + 4 * width].reshape(4, width), before, outputs)
        _add_product(weights[read + 4 * width :].reshape(4, sizes[0]), inputs, outputs)
        for t in range(count):
            for u in range(3):
                logits[start + t, u] = outputs[u, t]
