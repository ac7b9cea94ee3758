"""Feature group: the values of the candidates' attributes against those of the history."""

from __future__ import annotations

from typing import Final

import numpy as np

from features.candidates.contract import Block, FeatureColumns, FeatureInputs, FeatureShape
from features.data.dataset import FloatArray, IntArray, LongArray
from features.kernels.compiled import compiled
from features.kernels.hash_table import cell_of, empty_table

LABEL: Final = "attributes that the shopper chooses"


def _shares(shape: FeatureShape) -> list[str]:
    return [f"attribute_{i}" for i in range(shape.attributes)]


def _newest(shape: FeatureShape) -> list[str]:
    return [f"attribute_{i}_last" for i in range(shape.attributes)]


@compiled()
def _write_shares(
    rows: IntArray,
    items: IntArray,
    offsets: LongArray,
    attributes: IntArray,
    share_columns: LongArray,
    newest_columns: LongArray,
    features: FloatArray,
) -> None:
    """Write the similarity of the candidates' attributes to those of the history.

    Args:
        rows: candidates, padded with -1, [queries, candidates].
        items: of the histories' events, oldest first, [total events].
        offsets: events of each query, [queries + 1].
        attributes: codes of values, -1 where there is none, [items, attributes].
        share_columns: per attribute, column of the recency-weighted share of events with the candidate's
            value.
        newest_columns: per attribute, column of whether the newest event has it.
        features: written to, [queries, candidates, features].

    """
    count = attributes.shape[1]
    for query in range(len(rows)):
        start, stop = offsets[query], offsets[query + 1]
        total = 0.0
        for event in range(start, stop):
            total += 1.0 / (1.0 + (stop - 1 - event) / 20.0)
        for column in range(count if stop > start else 0):
            keys = empty_table(stop - start)
            sums = np.zeros(len(keys), dtype=np.float64)
            for event in range(start, stop):
                code = attributes[items[event], column]
                if code >= 0:
                    cell = cell_of(keys, code)
                    keys[cell] = code
                    sums[cell] += 1.0 / (1.0 + (stop - 1 - event) / 20.0)
            newest = attributes[items[stop - 1], column]
            for index in range(rows.shape[1]):
                row = rows[query, index]
                if row >= 0 and attributes[row, column] >= 0:
                    code = attributes[row, column]
                    features[query, index, share_columns[column]] = sums[cell_of(keys, code)] / total
                    features[query, index, newest_columns[column]] = np.float32(code == newest)


def write_attributes(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
    """Write the features of each grouping attribute."""
    shares, newest = columns.array(_shares(columns.shape)), columns.array(_newest(columns.shape))
    batch, codes = inputs.batch, inputs.arrays.statistics.attributes
    _write_shares(inputs.rows, batch.items, batch.offsets, codes, shares, newest, features)


SHARES: Final = Block(write_attributes, _shares, LABEL)
NEWEST: Final = Block(write_attributes, _newest, LABEL)
