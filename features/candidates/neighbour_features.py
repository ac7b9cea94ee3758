"""Feature group: how strongly each candidate is a neighbour of the history's items.

Most neighbours of a history are no candidates; a small hash table of the query's candidates finds those that
are. Sums are added in the order of the events, so they do not depend on other queries.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from features.candidates.contract import FeatureColumns, FeatureInputs, block
from features.data.dataset import FloatArray, IntArray, LongArray
from features.kernels.compiled import compiled
from features.kernels.hash_table import cell_of, table_of
from features.kernels.prefetch import LINE, fetch

LONG = 100
"""Newest history items in the long co-occurrence feature."""
SHORT = 20
"""Newest history items in the other features."""
AHEAD = 4
"""Prefetch distance, in events."""


LABEL: Final = "bought together with items of the history"
SHORT_SUMS: Final = ("together_sum", "together_last", "follow_sum", "follow_last", "text_table_sum")
"""Co-occurrence with the history's items, following them, similarity by text: weighted by recency, or with
the newest item alone (`last`)."""
LONG_SUMS: Final = ("together_long",)
"""Co-occurrence over a longer history."""


@compiled()
def _add_neighbours(
    keys: IntArray,
    indices: IntArray,
    ids: IntArray,
    weights: FloatArray,
    recency: float,
    newest: float,
    long: float,
    sums: npt.NDArray[np.float64],
    column: int,
) -> None:
    """Add an event's neighbours [k], weighted in three ways, to three columns of sums [candidates, any]."""
    for k in range(len(ids)):
        if ids[k] >= 0:
            cell = cell_of(keys, ids[k])
            if keys[cell] >= 0:
                index, weight = indices[cell], weights[k]
                sums[index, column] += weight * np.float32(recency)
                sums[index, column + 1] += weight * np.float32(newest)
                sums[index, column + 2] += weight * np.float32(long)


@compiled()
def _write_neighbours(
    rows: IntArray,
    items: IntArray,
    offsets: LongArray,
    together_ids: IntArray,
    together_weights: FloatArray,
    follow_ids: IntArray,
    follow_weights: FloatArray,
    text_ids: IntArray,
    text_weights: FloatArray,
    to: tuple[int, ...],
    features: FloatArray,
) -> None:
    """Write the sums of each candidate's weights among the neighbours of the history's events.

    Args:
        rows: candidates, each once per query, padded with -1, [queries, candidates].
        items: of the histories' events, oldest first, [total events].
        offsets: events of each query, [queries + 1].
        together_ids: co-occurring items, [items, k], as in `features.data.statistics.Neighbours`.
        together_weights: [items, k]
        follow_ids: following items, [items, k].
        follow_weights: [items, k]
        text_ids: nearest items by text, [items, k].
        text_weights: [items, k]
        to: columns of `SHORT_SUMS` and `LONG_SUMS`.
        features: written to, [queries, candidates, features].

    """
    together_sum, together_last, follow_sum, follow_last, text_table_sum, together_long = to
    for query in range(len(rows)):
        keys, indices = table_of(rows[query])
        sums = np.zeros((rows.shape[1], 9), dtype=np.float64)
        stop = offsets[query + 1]
        for event in range(max(offsets[query], stop - LONG), stop):
            item, age = items[event], stop - 1 - event
            if age >= AHEAD:
                for k in range(0, together_ids.shape[1], LINE):
                    fetch(together_ids, items[event + AHEAD], k)
                    fetch(together_weights, items[event + AHEAD], k)
            recency = 1.0 / (1.0 + age) if age < SHORT else 0.0
            newest, slow = 1.0 if age == 0 else 0.0, 1.0 / (1.0 + age / 20.0)
            _add_neighbours(
                keys, indices, together_ids[item], together_weights[item], recency, newest, slow, sums, 0
            )
            if age < SHORT:
                _add_neighbours(
                    keys, indices, follow_ids[item], follow_weights[item], recency, newest, slow, sums, 3
                )
                _add_neighbours(
                    keys, indices, text_ids[item], text_weights[item], recency, newest, slow, sums, 6
                )
        for index in range(rows.shape[1]):
            if rows[query, index] >= 0:
                features[query, index, together_sum] = sums[index, 0]
                features[query, index, together_last] = sums[index, 1]
                features[query, index, follow_sum] = sums[index, 3]
                features[query, index, follow_last] = sums[index, 4]
                features[query, index, text_table_sum] = sums[index, 6]
                features[query, index, together_long] = sums[index, 2]


def write_neighbours(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
    """Write the neighbour features."""
    statistics, batch = inputs.arrays.statistics, inputs.batch
    together, follow, texts = statistics.together, statistics.follow, inputs.arrays.text_near
    _write_neighbours(
        inputs.rows, batch.items, batch.offsets, together.ids, together.weights, follow.ids, follow.weights,
        texts.ids, texts.weights, columns.of(*SHORT_SUMS, *LONG_SUMS), features,
    )  # fmt: skip


NEIGHBOURS: Final = block(write_neighbours, *SHORT_SUMS, label=LABEL)
TOGETHER_LONG: Final = block(write_neighbours, *LONG_SUMS, label=LABEL)
