"""Slices of the queries with the values of two systems."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from features.data.dataset import LongArray
from ranking.comparison.measured import Measured
from ranking.comparison.window import Window
from ranking.evaluation.metrics import ValueArray
from ranking.evaluation.stage_recall import HEADLINE, ranked_values

SLICE_METRICS: Final = (f"recall@{HEADLINE}", f"ndcg@{HEADLINE}")


@dataclass(frozen=True)
class PairedSlice:
    """The values per query of two systems on a slice."""

    about: str
    targets: int
    a: Mapping[str, ValueArray]  # [slice] each
    b: Mapping[str, ValueArray]
    index: LongArray  # [slice] position of each query among all


def paired_slices(window: Window, a: Measured, b: Measured) -> dict[str, PairedSlice]:
    """Return the slices of a window that have a query, with recall@10 and ndcg@10 of both systems."""
    found = {}
    for part in window.slices:
        if len(part.queries):
            found[part.name] = PairedSlice(
                part.about,
                len(part.queries.targets),
                ranked_values(a.answer.items[part.index], part.queries),
                ranked_values(b.answer.items[part.index], part.queries),
                part.index,
            )
    return found
