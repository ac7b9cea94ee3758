"""The Protocol of a list constraint."""

from __future__ import annotations

from typing import Protocol

from features.data.dataset import BoolArray, IntArray
from ranking.rerank.rules import Rules


class Constraint(Protocol):
    """Excludes candidates from the rest of a slate while it is filled; one object per slate."""

    open: BoolArray
    """[candidates] mask of those eligible for the next position; where none is, more are retrieved."""

    def __init__(self, rows: IntArray, rules: Rules, taken: IntArray) -> None:
        """Start a slate.

        Args:
            rows: the candidates, [candidates].
            rules: of the list.
            taken: rows that count already: of previous pages, and pinned ones.

        """

    def take(self, candidate: int) -> None:
        """Update `open` after a candidate, by its position among the rows, was chosen."""
