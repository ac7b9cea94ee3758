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
    """Write each bit that is set in source masks [queries, candidates] to its column of zeros."""
    for query in range(len(rows)):
        for place in range(rows.shape[1]):
            if rows[query, place] >= 0:
                mask, bit = sources[query, place], 0
                while mask:
                    if mask & 1:
                        features[query, place, columns[bit]] = 1.0
                    mask >>= 1
                    bit += 1


def write_sources(inputs: FeatureInputs, columns: FeatureColumns, features: FloatArray) -> None:
    """Spread the source masks over one column for each source."""
    _write_bits(inputs.rows, inputs.sources, columns.array(_names(columns.shape)), features)


PROPOSED_BY: Final = Block(write_sources, _names)
