"""What a constraint on lists implements."""

from __future__ import annotations

from typing import Protocol

from features.data.dataset import BoolArray, IntArray
from ranking.rerank.rules import Rules


class Constraint(Protocol):
    """Shuts candidates out of the rest of a list while it is filled; one object for each list."""

    open: BoolArray
    """[candidates] which may be given the next place; where none is left, further ones are looked for."""

    def __init__(self, rows: IntArray, rules: Rules, taken: IntArray) -> None:
        """Begin a list.

        Args:
            rows: the candidates, [candidates].
            rules: of the list.
            taken: rows that count already: of the pages before, and pinned ones.

        """

    def take(self, candidate: int) -> None:
        """Change what is open once a candidate, by its position among the rows, has been given a place."""
