"""The interval of paired differences."""

from __future__ import annotations

import numpy as np

from benchmarks.int8_recall import interval


def test_interval_of_paired_differences() -> None:
    assert interval(np.full(50, 0.25)) == (0.25, 0.25)
    low, high = interval(np.tile([-1.0, 1.0], 200))
    # The mean of 400 differences of size 1 has a standard error of .05: 1.96 of it on either side.
    assert abs(low + 0.098) < 0.015
    assert abs(high - 0.098) < 0.015
