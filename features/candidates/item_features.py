"""Feature group: a candidate's properties that do not depend on the history: statistics, demand, price."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from features.candidates.contract import FeatureColumns, FeatureInputs, block
from features.data.dataset import FloatArray, IntArray, LongArray
from features.data.demand import demand_names
from features.kernels.compiled import compiled

DEMAND_LABEL: Final = "how well and how regularly it sells"
LOOKED_UP: Final = ("repeat_rate", "gap_days", "log_count")
PRICES: Final = ("log_price", "price_above_usual")
"""Log price, and its difference from the mean over the history."""


@compiled()
def _write_items(
    rows: IntArray,
    items: IntArray,
    offsets: LongArray,
    near_recent: FloatArray,
    repeat_rate: FloatArray,
    gap_days: FloatArray,
    count: FloatArray,
    log_price: FloatArray,
    demand: FloatArray,
    known: IntArray,
    to: tuple[int, ...],
    demand_columns: LongArray,
    features: FloatArray,
) -> None:
    """Write the features that are looked up per item.

    Args:
        rows: candidates, padded with -1, [queries, candidates].
        items: of the histories' events, [total events], whose mean price is the reference.
        offsets: events of each query, [queries + 1].
        near_recent: recent demand for the nearest items by text, [items].
        repeat_rate: [items]
        gap_days: [items]
        count: [items]
        log_price: [items]
        demand: [any, columns].
        known: row of `demand` of each candidate, [queries, candidates].
        to: columns of `near_recent`, `LOOKED_UP` and `PRICES`.
        demand_columns: columns of `demand`, [columns].
        features: written to, [queries, candidates, features].

    """
    text_near_recent, repeat_rate_column, gap_days_column, log_count, price, price_above_usual = to
    for query in range(len(rows)):
        start, stop = offsets[query], offsets[query + 1]
        usual = 0.0
        for event in range(start, stop):
            usual += log_price[items[event]]
        usual /= max(stop - start, 1)
        for index in range(rows.shape[1]):
            row = rows[query, index]
            if row < 0:
                continue
            values = features[query, index]
            values[text_near_recent] = near_recent[row]
            values[repeat_rate_column] = repeat_rate[row]
            values[gap_days_column] = math.log(1.0 + np.float64(gap_days[row]))
            values[log_count] = math.log(1.0 + np.float64(count[row]))
            sold = demand[known[query, index]]
            for column in range(demand.shape[1]):
                values[demand_columns[column]] = sold[column]
            values[price] = log_price[row]
            values[price_above_usual] = log_price[row] - usual if stop > start else 0.0


def write_items(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
    """Look up each candidate."""
    arrays, statistics, batch = inputs.arrays, inputs.arrays.statistics, inputs.batch
    demand, known = statistics.demand.table(inputs.rows, batch.now)
    _write_items(
        inputs.rows, batch.items, batch.offsets, arrays.text_near_recent, statistics.repeat_rate,
        statistics.gap_days, statistics.count, statistics.log_price, demand, known,
        columns.of("text_near_recent", *LOOKED_UP, *PRICES), columns.array(demand_names()), features,
    )  # fmt: skip


TEXT_DEMAND: Final = block(write_items, "text_near_recent", label=DEMAND_LABEL)
ITEMS: Final = block(write_items, *LOOKED_UP, *demand_names(), label=DEMAND_LABEL)
PRICE: Final = block(write_items, *PRICES, label="price")
