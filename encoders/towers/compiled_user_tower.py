"""A trained user tower of one layer as it is served: its weights laid out for one compiled pass.

Serving wants the state after the newest event, and one layer needs little of the events before it. The newest
position's query is taken through the key matrix instead of every event's key out of it: a head's scores are
products of one vector with the events' normed states. The value and output matrices are likewise applied
after a head has averaged those states. So the cost per event grows with the width, and only the cost per
history with its square. The norms' gains and biases are folded into the matrices that follow. Histories are
computed independently: nothing is padded, and a vector does not depend on the rest of the batch.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from encoders.towers.user_tower import GAP_BUCKETS, Block, UserEncoder
from features.data.dataset import FloatArray, IntArray, LongArray
from features.data.histories import HistoryBatch
from features.kernels.compiled import compiled
from features.kernels.prefetch import LINE, fetch

Weights: TypeAlias = npt.NDArray[np.float64]
TILE = 8
"""Histories per tile: each matrix is fetched once for all of them."""
AHEAD = 8
"""Prefetch distance, in events."""
EPSILON = np.float32(1e-5)
"""The epsilon of torch's layer norm."""
ZERO, ONE = np.float32(0.0), np.float32(1.0)
_FAST = ("contract", "reassoc", "nsz")
"""LLVM flags that let sums be reordered; the order is the same for every history."""


class CompiledUserTower(NamedTuple):
    """Weights; matrices are [inputs, outputs], each with its biases [outputs]."""

    position: FloatArray
    """[max length, dim] by events since."""
    kind: FloatArray
    """[kinds, dim]"""
    gap: FloatArray
    """[gap buckets, dim]"""
    norms: FloatArray
    """[4, dim] gain and bias of the norm in front, gain and bias of the one behind."""
    query_key: FloatArray
    """[dim, heads * dim] query times key matrix: newest event's normed state to each head's query."""
    query_key_bias: FloatArray
    value_out: FloatArray
    """[heads * dim, dim] value times output matrix: averages of normed states to attention's output."""
    value_out_bias: FloatArray
    up: FloatArray
    """[dim, 4 dim]"""
    up_bias: FloatArray
    down: FloatArray
    """[2 dim, dim]"""
    down_bias: FloatArray

    @classmethod
    def of(cls, encoder: UserEncoder) -> CompiledUserTower:
        """Lay out the weights of a tower of one layer."""
        if len(encoder.blocks) != 1:
            raise ValueError("only a tower of one layer can be compiled")
        weights = {
            name.removeprefix("blocks.0."): tensor.numpy(force=True).astype(np.float64)
            for name, tensor in encoder.state_dict().items()
        }
        heads, dim = cast(Block, encoder.blocks[0]).heads, encoder.position.embedding_dim
        # Each [heads, dim / heads, dim]. A key's bias adds the same to all scores, which is nothing.
        query, key, value = weights["qkv.weight"].reshape(3, heads, dim // heads, dim)
        query_bias, _, value_bias = weights["qkv.bias"].reshape(3, heads, dim // heads)
        out = weights["out.weight"].reshape(dim, heads, dim // heads).transpose(1, 2, 0)
        gain, bias = weights["attention_norm.weight"], weights["attention_norm.bias"]
        key = key * gain / math.sqrt(dim // heads)
        query_key = np.einsum("hei,hej->ihj", query, key).reshape(dim, heads * dim)
        value_out = (value.transpose(0, 2, 1) @ out).reshape(heads * dim, dim)
        value_out_bias = weights["out.bias"] + weights["out.weight"] @ value_bias.ravel()
        ends = [weights[f"{end}_norm.{part}"] for end in ("input", "output") for part in ("weight", "bias")]
        arrays = (
            *(weights[f"{table}.weight"] for table in ("position", "kind", "gap")),
            np.stack(ends),
            *_fold_norm(gain, bias, query_key, np.einsum("he,hej->hj", query_bias, key).ravel()),
            # Attention weights add up to 1, so an average is shifted by a norm's bias as a state is.
            *_fold_norm(np.tile(gain, heads), np.tile(bias, heads), value_out, value_out_bias),
            *_fold_norm(
                weights["feed_norm.weight"],
                weights["feed_norm.bias"],
                weights["up.weight"].T,
                weights["up.bias"],
            ),
            weights["down.weight"].T,
            weights["down.bias"],
        )
        return cls(*(np.ascontiguousarray(array, dtype=np.float32) for array in arrays))

    def newest(self, batch: HistoryBatch, item_vectors: FloatArray) -> FloatArray:
        """Return the state after each history's newest event, [histories, dim]; zero where there is none.

        Args:
            batch: the histories; events before the newest `max length` are left out.
            item_vectors: [items, dim].

        """
        states = np.zeros((len(batch), item_vectors.shape[1]), dtype=np.float32)
        _encode(item_vectors, batch.items, batch.kinds, batch.times, batch.offsets, *self, states)
        return states


def _fold_norm(gain: Weights, bias: Weights, matrix: Weights, shift: Weights) -> tuple[Weights, Weights]:
    """Fold a norm's gain and bias into the matrix [inputs, outputs] and biases that follow it."""
    return gain[:, None] * matrix, shift + bias @ matrix


@compiled(*_FAST)
def _add_product(inputs: FloatArray, weights: FloatArray, sums: FloatArray) -> None:
    """Add inputs [rows, inputs] times weights [inputs, outputs] to sums [rows, outputs]."""
    rows, width = inputs.shape
    whole = width - width % 4
    for i in range(0, whole, 4):
        a, b, c, d = weights[i], weights[i + 1], weights[i + 2], weights[i + 3]
        for n in range(rows):
            w, x, y, z = inputs[n, i], inputs[n, i + 1], inputs[n, i + 2], inputs[n, i + 3]
            for o in range(weights.shape[1]):
                sums[n, o] += w * a[o] + x * b[o] + y * c[o] + z * d[o]
    for i in range(whole, width):
        for n in range(rows):
            for o in range(weights.shape[1]):
                sums[n, o] += inputs[n, i] * weights[i, o]


@compiled(*_FAST)
def _normalise(state: FloatArray, normed: FloatArray) -> None:
    """Write a state [dim] with mean 0 and variance 1."""
    total = squares = ZERO
    for i in range(len(state)):
        total += state[i]
    mean = total / np.float32(len(state))
    for i in range(len(state)):
        squares += (state[i] - mean) * (state[i] - mean)
    share = ONE / np.sqrt(squares / np.float32(len(state)) + EPSILON)
    for i in range(len(state)):
        normed[i] = (state[i] - mean) * share


@compiled(*_FAST)
def _attend(projected: FloatArray, normed: FloatArray, scores: FloatArray, mixed: FloatArray) -> None:
    """Write each head's average of the events' states [events, dim], weighted by attention."""
    events, dim = normed.shape
    mixed[:] = ZERO
    for start in range(0, len(projected), dim):
        query, sums = projected[start : start + dim], mixed[start : start + dim]
        largest, total = -np.float32(np.inf), ZERO
        for event in range(events):
            state, score = normed[event], ZERO
            for i in range(dim):
                score += query[i] * state[i]
            scores[event] = score
            largest = max(largest, score)
        for event in range(events):
            scores[event] = np.exp(scores[event] - largest)
            total += scores[event]
        for event in range(events):
            state, share = normed[event], scores[event] / total
            for i in range(dim):
                sums[i] += share * state[i]


@compiled(*_FAST)
def _bucket(seconds: int) -> int:
    """Return the bucket of a gap, as `encoders.towers.user_tower.gap_buckets` does."""
    minutes, edge, bucket = ONE + np.float32(max(seconds, 0)) / np.float32(60.0), ONE, 0
    while minutes > edge and bucket < GAP_BUCKETS - 1:
        edge, bucket = edge + edge, bucket + 1
    return bucket


@compiled(*_FAST)
def _begin(
    item_vectors: FloatArray,
    items: IntArray,
    kinds: npt.NDArray[np.int8],
    times: LongArray,
    position: FloatArray,
    kind: FloatArray,
    gap: FloatArray,
    norms: FloatArray,
    normed: FloatArray,
    newest: FloatArray,
) -> None:
    """Write a history's normed states [events, dim] and the newest event's state before the norm, [dim]."""
    events = len(items)
    for event in range(events):
        if event + AHEAD < events:
            for i in range(0, item_vectors.shape[1], LINE):
                fetch(item_vectors, items[event + AHEAD], i)
        item, place = item_vectors[items[event]], position[events - 1 - event]
        what = kind[kinds[event]]
        since = gap[_bucket(times[event] - times[event - 1] if event > 0 else 0)]
        for i in range(len(newest)):
            newest[i] = item[i] + place[i] + what[i] + since[i]
        _normalise(newest, newest)
        for i in range(len(newest)):
            newest[i] = newest[i] * norms[0, i] + norms[1, i]
        _normalise(newest, normed[event])


@compiled(*_FAST)
def _encode(
    item_vectors: FloatArray,
    items: IntArray,
    kinds: npt.NDArray[np.int8],
    times: LongArray,
    offsets: LongArray,
    position: FloatArray,
    kind: FloatArray,
    gap: FloatArray,
    norms: FloatArray,
    query_key: FloatArray,
    query_key_bias: FloatArray,
    value_out: FloatArray,
    value_out_bias: FloatArray,
    up: FloatArray,
    up_bias: FloatArray,
    down: FloatArray,
    down_bias: FloatArray,
    vectors: FloatArray,
) -> None:
    """Write the states after the newest events [histories, dim]; the rest as in `CompiledUserTower`."""
    histories, dim = vectors.shape
    longest, size = len(position), min(TILE, histories)
    normed = np.empty((size, longest, dim), dtype=np.float32)
    states, inputs = np.empty((size, dim), dtype=np.float32), np.empty((size, dim), dtype=np.float32)
    projected = np.empty((size, len(query_key_bias)), dtype=np.float32)
    mixed = np.empty((size, len(query_key_bias)), dtype=np.float32)
    wide, gated = np.empty((size, 4 * dim), dtype=np.float32), np.empty((size, 2 * dim), dtype=np.float32)
    scores, which = np.empty(longest, dtype=np.float32), np.empty(size, dtype=np.int64)
    history = 0
    while history < histories:
        count = 0
        while history < histories and count < size:
            stop = offsets[history + 1]
            start = max(offsets[history], stop - longest)
            if stop > start:
                _begin(
                    item_vectors, items[start:stop], kinds[start:stop], times[start:stop],
                    position, kind, gap, norms, normed[count], states[count],
                )  # fmt: skip
                inputs[count] = normed[count, stop - start - 1]
                which[count] = history
                count += 1
            history += 1
        projected[:] = query_key_bias
        _add_product(inputs[:count], query_key, projected[:count])
        for n in range(count):
            events = min(offsets[which[n] + 1] - offsets[which[n]], longest)
            _attend(projected[n], normed[n, :events], scores, mixed[n])
            states[n] += value_out_bias
        _add_product(mixed[:count], value_out, states[:count])
        for n in range(count):
            _normalise(states[n], inputs[n])
            states[n] += down_bias
        wide[:] = up_bias
        _add_product(inputs[:count], up, wide[:count])
        for n in range(count):
            for i in range(2 * dim):
                gated[n, i] = wide[n, i] / (ONE + np.exp(-wide[n, i])) * wide[n, 2 * dim + i]
        _add_product(gated[:count], down, states[:count])
        for n in range(count):
            _normalise(states[n], inputs[n])
            for i in range(dim):
                vectors[which[n], i] = inputs[n, i] * norms[2, i] + norms[3, i]
