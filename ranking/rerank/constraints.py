"""The registry of list constraints, where one is added."""

from __future__ import annotations

from ranking.rerank.caps import CapTracker
from ranking.rerank.contract import Constraint as Constraint

CONSTRAINTS: tuple[type[Constraint], ...] = (CapTracker,)
"""All apply to every request with rules."""
