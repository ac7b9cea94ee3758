"""The constraints of lists, and the one place where one is added."""

from __future__ import annotations

from ranking.rerank.caps import CapTracker
from ranking.rerank.contract import Constraint as Constraint

CONSTRAINTS: tuple[type[Constraint], ...] = (CapTracker,)
"""They hold together, for every request with rules."""
