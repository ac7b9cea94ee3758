"""Promotion of cold items at a bounded cost.

A ranking head predicts relevance, but not the value of exploration: an item without impressions collects no
events and stays cold. So an offset is added to the scores of cold items. Its cost is the expected loss of
clicks among the first ten, by the head's own probabilities; a budget, the share of all expected clicks that
may be lost, decides how large the offset is. New items then appear where they cost least: in lists whose
other candidates are hardly better, and in most lists not at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np

from features.data.dataset import BoolArray, FloatArray

NOVELTY_FILE: Final = "novelty.json"
CUTOFF: Final = 10
"""First ranks of a list that are counted."""
BUDGETS: Final = (0.0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Budgets with a stored offset; between them offsets are interpolated."""
MAX_EXPOSURE_RATIO: Final = 4.0
"""Largest exposure of cold items, relative to the average item's. Otherwise a handful of cold items would be
in every list."""
_ROUNDING: Final = 1e-4
"""Scores are rounded to this: adding it breaks a tie."""


@dataclass(frozen=True)
class Novelty:
    """Score offsets of cold items by budget."""

    budgets: tuple[float, ...]
    """Ascending, from 0."""
    offsets: tuple[float, ...]
    """One per budget."""

    def offset(self, budget: float) -> float:
        """Return the offset of an item without events."""
        return float(np.interp(budget, self.budgets, self.offsets))

    def added(self, budgets: Sequence[float], events: FloatArray) -> FloatArray:
        """Return the offsets of items without training events, [queries, candidates].

        They fade: an item with n events since then gets 1 / (1 + n) of the offset.

        Args:
            budgets: of each query.
            events: number of events of each candidate, [queries, candidates].

        """
        offsets = np.array([self.offset(budget) for budget in budgets], dtype=np.float32)
        added: FloatArray = np.round(offsets[:, None] / (1.0 + events), 4).astype(np.float32)
        return added

    def save(self, folder: Path) -> None:
        """Write the table."""
        (folder / NOVELTY_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Novelty | None:
        """Read what `save` wrote; None where there is no such file."""
        path = folder / NOVELTY_FILE
        if not path.is_file():
            return None
        content = json.loads(path.read_text())
        return cls(tuple(content["budgets"]), tuple(content["offsets"]))

    @classmethod
    def of_lists(
        cls, scores: FloatArray, clicks: FloatArray, unknown: BoolArray, rate: float
    ) -> Novelty | None:
        """Return offsets fitted to scored candidates; None where no cold item is among them.

        Args:
            scores: of the ranking head, -inf at padding, [lists, candidates].
            clicks: click probabilities, [lists, candidates].
            unknown: mask of the candidates without events, [lists, candidates].
            rate: share of the catalogue without events.

        """
        width = min(CUTOFF, scores.shape[1])
        known, known_clicks = _best(np.where(unknown, -np.inf, scores), clicks, width)
        new, new_clicks = _best(np.where(unknown, scores, -np.inf), clicks, width)
        real = np.isfinite(new)
        if not real.any():
            return None
        # The n-th best cold item enters the first ten by passing the warm item n-th from their end, which it
        # replaces. An offset admits every item that lacks less.
        lacking = (known[:, ::-1] - new)[real]
        price = (known_clicks[:, ::-1] - new_clicks)[real].astype(np.float64)
        order = np.argsort(lacking, kind="stable")
        lacking, price = lacking[order], price[order]
        already = int(np.searchsorted(lacking, 0.0))
        expected = float(known_clicks.sum(dtype=np.float64)) - float(price[:already].sum())
        most = max(round(MAX_EXPOSURE_RATIO * rate * len(scores) * CUTOFF), already)
        spent = np.maximum.accumulate(np.concatenate([[0.0], np.cumsum(price[already:most])]))
        offsets = []
        for budget in BUDGETS:
            admitted = int(np.searchsorted(spent, budget * expected, side="right")) - 1
            offsets.append(float(lacking[already + admitted - 1]) + _ROUNDING if admitted and budget else 0.0)
        return cls(BUDGETS, tuple(offsets))


def _best(scores: FloatArray, clicks: FloatArray, width: int) -> tuple[FloatArray, FloatArray]:
    """Return the highest scores and their click probabilities, [lists, width] each; 0 at padding."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :width]
    best = np.take_along_axis(scores, order, axis=1)
    chosen: FloatArray = np.where(np.isfinite(best), np.take_along_axis(clicks, order, axis=1), 0.0)
    return best, chosen
