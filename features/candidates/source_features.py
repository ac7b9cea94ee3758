"""Feature group: which sources proposed a candidate."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from features.candidates.contract import Block, FeatureColumns, FeatureInputs, FeatureShape
from features.data.dataset import FloatArray, IntArray, LongArray
from features.kernels.compiled import compiled


def _names(shape: FeatureShape) -> list[str]:
    return [f"source_{name}" for name in shape.sources]


@compiled()
def _write_bits(
    rows: IntArray, sources: npt.NDArray[np.int16], columns: LongArray, features: FloatArray
) -> None:
    """Write 1 to the column of each bit that is set in source masks [queries, candidates]."""
    for query in range(len(rows)):
        for index in range(rows.shape[1]):
            if rows[query, index] >= 0:
                mask, bit = sources[query, index], 0
                while mask:
                    if mask & 1:
                        features[query, index, columns[bit]] = 1.0
                    mask >>= 1
                    bit += 1


def write_sources(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
    """Write the source masks as one column per source."""
    _write_bits(inputs.rows, inputs.sources, columns.array(_names(columns.shape)), features)


PROPOSED_BY: Final = Block(write_sources, _names, "which sources proposed it")
