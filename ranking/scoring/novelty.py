"""How far items without behaviour are moved up, at a set price.

A ranking head says how well an item suits a shopper, but not what a shop gains from finding out: an item that
is never shown is never bought, and stays unknown. So a constant is added to the scores of unknown items. Its
price is what the head expects to be chosen less often among the first ten; a budget for that, as a share of
all expected choices, decides how large the constant is. New items then stand where they cost least: in lists
whose other candidates are hardly better, and in most lists not at all.
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
PLACES: Final = 10
"""First places of a list that count."""
BUDGETS: Final = (0.0, 0.0005, 0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Budgets for which offsets are kept; between them they are interpolated."""
FAIR: Final = 4.0
"""Most places of new items, in those that as many items of the catalogue have on average. Otherwise a handful
of items that were never chosen would be in every list."""
_MORE: Final = 1e-4
"""Scores are rounded to so much: an item that is added this passes one that it equals."""


@dataclass(frozen=True)
class Novelty:
    """Offsets of unknown items' scores by budget."""

    budgets: tuple[float, ...]
    """Rising, from 0."""
    offsets: tuple[float, ...]
    """Of each budget."""

    def offset(self, budget: float) -> float:
        """Return what to add to the score of an item without any event."""
        return float(np.interp(budget, self.budgets, self.offsets))

    def added(self, budgets: Sequence[float], events: FloatArray) -> FloatArray:
        """Return what is added to the scores of items that had no event at training, [queries, candidates].

        It fades with what becomes known: an item with n events since then gets a 1 / (1 + n) of it.

        Args:
            budgets: of each query.
            events: how many are known of each candidate, [queries, candidates].

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
        """Find the offsets from scored candidates; None where no unknown item is among them.

        Args:
            scores: of the ranking head, -inf at padding, [lists, candidates].
            clicks: probabilities that a candidate is chosen, [lists, candidates].
            unknown: which candidates are items without any event, [lists, candidates].
            rate: share of the catalogue that is unknown.

        """
        width = min(PLACES, scores.shape[1])
        known, known_clicks = _best(np.where(unknown, -np.inf, scores), clicks, width)
        new, new_clicks = _best(np.where(unknown, scores, -np.inf), clicks, width)
        real = np.isfinite(new)
        if not real.any():
            return None
        # The n-th best unknown item is among the first ten once it passes the known item that is n-th from
        # the end of them, whose place it takes. An offset lets in every item that lacks less.
        lacking = (known[:, ::-1] - new)[real]
        price = (known_clicks[:, ::-1] - new_clicks)[real].astype(np.float64)
        order = np.argsort(lacking, kind="stable")
        lacking, price = lacking[order], price[order]
        already = int(np.searchsorted(lacking, 0.0))
        expected = float(known_clicks.sum(dtype=np.float64)) - float(price[:already].sum())
        most = max(round(FAIR * rate * len(scores) * PLACES), already)
        spent = np.maximum.accumulate(np.concatenate([[0.0], np.cumsum(price[already:most])]))
        offsets = []
        for budget in BUDGETS:
            let_in = int(np.searchsorted(spent, budget * expected, side="right")) - 1
            offsets.append(float(lacking[already + let_in - 1]) + _MORE if let_in and budget else 0.0)
        return cls(BUDGETS, tuple(offsets))


def _best(scores: FloatArray, clicks: FloatArray, width: int) -> tuple[FloatArray, FloatArray]:
    """Return the highest scores and their probabilities, each [lists, width]; 0 for padding's."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :width]
    best = np.take_along_axis(scores, order, axis=1)
    chosen: FloatArray = np.where(np.isfinite(best), np.take_along_axis(clicks, order, axis=1), 0.0)
    return best, chosen
