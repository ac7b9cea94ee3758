"""Feature group: how near each candidate is to the history's items in the tables of neighbours.

Most of what a history leads to is no candidate. A small table of the query's candidates tells what is. Sums
are added up in the order of the events, whatever other queries there are.
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
"""History items whose neighbours the long co-occurrence feature adds up."""
SHORT = 20
"""History items whose neighbours the other features add up."""
AHEAD = 4
"""Events by which fetching is ahead of adding up."""


SHORT_SUMS: Final = ("together_sum", "together_last", "follow_sum", "follow_last", "text_table_sum")
"""Found together with the history's items in other histories, following them there, alike by text: by
recency, or with the newest item alone (`last`)."""
LONG_SUMS: Final = ("together_long",)
"""Found together, over a longer history."""


@compiled()
def _add_neighbours(
    keys: IntArray,
    places: IntArray,
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
                place, weight = places[cell], weights[k]
                sums[place, column] += weight * np.float32(recency)
                sums[place, column + 1] += weight * np.float32(newest)
                sums[place, column + 2] += weight * np.float32(long)


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
    """Add up how near each candidate is to the history's events in the tables of neighbours.

    Args:
        rows: candidates, each once per query, padded with -1, [queries, candidates].
        items: of the histories' events, oldest first, [total events].
        offsets: events of each query, [queries + 1].
        together_ids: found together, [items, k], as in `features.data.statistics.Neighbours`.
        together_weights: theirs, as of the next two.
        follow_ids: what follows, [items, k].
        follow_weights: [items, k]
        text_ids: alike by text, [items, k].
        text_weights: [items, k]
        to: columns of `SHORT_SUMS` and `LONG_SUMS`.
        features: written to, [queries, candidates, features].

    """
    together_sum, together_last, follow_sum, follow_last, text_table_sum, together_long = to
    for query in range(len(rows)):
        keys, places = table_of(rows[query])
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
                keys, places, together_ids[item], together_weights[item], recency, newest, slow, sums, 0
            )
            if age < SHORT:
                _add_neighbours(
                    keys, places, follow_ids[item], follow_weights[item], recency, newest, slow, sums, 3
                )
                _add_neighbours(
                    keys, places, text_ids[item], text_weights[item], recency, newest, slow, sums, 6
                )
        for place in range(rows.shape[1]):
            if rows[query, place] >= 0:
                features[query, place, together_sum] = sums[place, 0]
                features[query, place, together_last] = sums[place, 1]
                features[query, place, follow_sum] = sums[place, 3]
                features[query, place, follow_last] = sums[place, 4]
                features[query, place, text_table_sum] = sums[place, 6]
                features[query, place, together_long] = sums[place, 2]


def write_neighbours(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
    """Add up the neighbours of each history."""
    statistics, batch = inputs.arrays.statistics, inputs.batch
    together, follow, texts = statistics.together, statistics.follow, inputs.arrays.text_near
    _write_neighbours(
        inputs.rows, batch.items, batch.offsets, together.ids, together.weights, follow.ids, follow.weights,
        texts.ids, texts.weights, columns.of(*SHORT_SUMS, *LONG_SUMS), features,
    )  # fmt: skip


NEIGHBOURS: Final = block(write_neighbours, *SHORT_SUMS)
TOGETHER_LONG: Final = block(write_neighbours, *LONG_SUMS)
