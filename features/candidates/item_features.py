"""What is known of a candidate whatever the history: statistics, demand, price, who proposed it."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from features.data.dataset import FloatArray, IntArray, LongArray
from features.kernels.compiled import compiled


@compiled()
def write_item_features(
    rows: IntArray,
    sources: npt.NDArray[np.int16],
    items: IntArray,
    offsets: LongArray,
    near_recent: FloatArray,
    repeat_rate: FloatArray,
    gap_days: FloatArray,
    count: FloatArray,
    log_price: FloatArray,
    demand: FloatArray,
    known: IntArray,
    near: int,
    first: int,
    source: int,
    names: int,
    features: FloatArray,
) -> None:
    """Write what is looked up per item.

    Args:
        rows: candidates, padded with -1, [queries, candidates].
        sources: bit masks of the sources, [queries, candidates].
        items: of the histories' events, [total events]: what they cost is what is usual.
        offsets: events of each query, [queries + 1].
        near_recent: recent demand for what reads alike, [items].
        repeat_rate: [items]
        gap_days: [items]
        count: [items]
        log_price: [items]
        demand: [any, columns].
        known: the row of `demand` that a candidate has, [queries, candidates].
        near: column of `near_recent`.
        first: first of the columns from `repeat_rate` to `price_above_usual`.
        source: first column of the sources.
        names: how many sources there are.
        features: written to, [queries, candidates, features].

    """
    for query in range(len(rows)):
        start, stop = offsets[query], offsets[query + 1]
        usual = 0.0
        for event in range(start, stop):
            usual += log_price[items[event]]
        usual /= max(stop - start, 1)
        for place in range(rows.shape[1]):
            row = rows[query, place]
            if row < 0:
                continue
            values = features[query, place]
            values[near] = near_recent[row]
            values[first] = repeat_rate[row]
            values[first + 1] = math.log(1.0 + np.float64(gap_days[row]))
            values[first + 2] = math.log(1.0 + np.float64(count[row]))
            price, sold = first + 3 + demand.shape[1], demand[known[query, place]]
            for column in range(demand.shape[1]):
                values[first + 3 + column] = sold[column]
            values[price] = log_price[row]
            values[price + 1] = log_price[row] - usual if stop > start else 0.0
            for bit in range(names):
                values[source + bit] = (sources[query, place] >> bit) & 1
