"""Caps on equal values, tracked while a slate is filled."""

from __future__ import annotations

import numpy as np

from features.data.dataset import BoolArray, IntArray
from ranking.rerank.contract import Constraint
from ranking.rerank.rules import Rules, values_at


class CapTracker(Constraint):
    """Tracks caps: a candidate is open until the cap of one of its values is exhausted."""

    def __init__(self, rows: IntArray, rules: Rules, taken: IntArray) -> None:
        """Start with the rows that count already."""
        self.open: BoolArray = np.ones(len(rows), dtype=np.bool_)
        self._codes = [values_at(cap.codes, rows, -1) for cap in rules.caps]
        self._limits = [cap.limit for cap in rules.caps]
        self._counts: list[dict[int, int]] = [{} for _ in rules.caps]
        for number, cap in enumerate(rules.caps):
            for code in values_at(cap.codes, taken, -1).tolist():
                self._count(number, code)

    def take(self, candidate: int) -> None:
        """Count a chosen candidate."""
        for number, codes in enumerate(self._codes):
            self._count(number, int(codes[candidate]))

    def _count(self, number: int, code: int) -> None:
        if code >= 0:
            counts = self._counts[number]
            counts[code] = counts.get(code, 0) + 1
            if counts[code] >= self._limits[number]:
                self.open &= self._codes[number] != code
