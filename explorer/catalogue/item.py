"""One item: its figures, its neighbours by meaning and by behaviour, and its near duplicates."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import numpy as np

from explorer.catalogue.colours import days_on_sale
from explorer.model import LoadedModel
from features.data.dataset import FloatArray, IntArray
from ranking.overview.overview import NEARLY_EQUAL, Overview

NEAR: Final = 10
"""Neighbours of each sort on the page of an item."""


@dataclass(frozen=True)
class Neighbour:
    """An item beside another one."""

    row: int
    item_id: str
    title: str
    value: float
    """Cosine, or strength of buying together."""
    events: int


@dataclass(frozen=True)
class ItemFacts:
    """What is known of an item beside its attributes."""

    row: int
    events: int
    recent: float
    """Events, each counting half 14 days later."""
    days: int | None
    """Since its first event; None without one."""
    repeat_rate: float
    """Share of its buyers who came back for it, smoothed."""
    gap_days: float
    """Typical days between."""
    rank: int
    """Place by events, from 1."""
    near: tuple[Neighbour, ...]
    """By meaning, nearest first."""
    together: tuple[Neighbour, ...]
    """Bought together, strongest first."""
    duplicates: tuple[Neighbour, ...]
    """Nearly the same text."""


def item_facts(model: LoadedModel, overview: Overview, row: int) -> ItemFacts:
    """Return the facts of an item."""
    statistics = model.recommender.arrays.statistics
    own = np.array([row], dtype=np.int32)
    rows, cosines = model.recommender.similar(model.bundle.text_vectors[row : row + 1], NEAR, own)
    together = statistics.together_ids[row][:NEAR]
    days = float(days_on_sale(statistics)[row])
    events = float(statistics.count[row])
    return ItemFacts(
        row,
        int(events),
        float(statistics.recent[row]),
        None if np.isnan(days) else int(days),
        float(statistics.repeat_rate[row]),
        float(statistics.gap_days[row]),
        int((statistics.count > events).sum()) + 1,
        neighbours(model, rows[0], cosines[0]),
        neighbours(model, together, statistics.together_weights[row][:NEAR]),
        neighbours(model, *alike(overview, row)),
    )


def alike(overview: Overview, row: int, least: float = NEARLY_EQUAL) -> tuple[IntArray, FloatArray]:
    """Return the rest of the group of nearly equal texts that an item is in, and its cosine with each.

    Members that are only connected through others have the cosine 0: it is not stored.
    """
    group = next((g for g in overview.groups(least) if row in g), np.zeros(0, dtype=np.int32))
    others = group[group != row]
    mine = (overview.pairs == row).any(axis=1)
    partner = overview.pairs[mine].sum(axis=1) - row
    known = dict(zip(partner.tolist(), overview.cosines[mine].tolist(), strict=True))
    cosines = np.array([known.get(int(other), 0.0) for other in others], dtype=np.float32)
    order = np.lexsort((others, -cosines))
    return others[order], cosines[order]


def neighbours(model: LoadedModel, rows: Iterable[int], values: Iterable[float]) -> tuple[Neighbour, ...]:
    """Return rows with a value each as neighbours; padding is left out."""
    counts = model.recommender.arrays.statistics.count
    return tuple(
        Neighbour(
            int(row),
            model.bundle.catalogue.ids[row],
            model.items.title(int(row)),
            float(value),
            int(counts[row]),
        )
        for row, value in zip(rows, values, strict=True)
        if row >= 0
    )
