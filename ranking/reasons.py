"""Reasons for a recommended item, from the user's own history; only reasons that hold are given."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from features.candidates.features import ItemArrays
from features.candidates.similarity import RECENT
from features.data import schema
from features.data.dataset import FloatArray
from ranking.types import History, Reason

SIMILAR_COSINE: Final = 0.6
"""Smallest cosine of PCA text vectors for the reason `reads_like`; unrelated texts are around 0."""
POPULAR_EVENTS: Final = 0.5
"""Smallest recent demand (events with a half-life of 14 days) for the reason `popular`."""
_HISTORY_REASONS: Final = {
    schema.IMPRESSION: "",
    "purchase": "bought_before",
    **dict.fromkeys(schema.CLICK_KINDS, "viewed_before"),
}
"""Reason for an item of the history, by event kind; `chosen_before` for other kinds."""
_STRENGTHS: Final = ("bought_before", "chosen_before", "viewed_before")


@dataclass(frozen=True)
class Evidence:
    """What reasons are derived from."""

    arrays: ItemArrays
    kinds: Sequence[str]
    """Event kinds, strongest first."""
    popularity: FloatArray
    """[items] events with a half-life of 14 days."""
    personal: frozenset[str] = frozenset()
    """Names of the sources that choose by the shopper's history."""


def explain(
    row: int, proposed_by: Collection[str], history: History, evidence: Evidence, matches: bool = False
) -> tuple[Reason, ...]:
    """Return the reasons for an item, strongest first; empty where none holds.

    Args:
        row: the recommended item.
        proposed_by: names of the sources that proposed it.
        history: the history that the list was made from.
        evidence: item-side data.
        matches: whether the item matches the text query.

    """
    arrays = evidence.arrays
    reasons: list[Reason] = []
    recent = history.items[-2 * RECENT :][::-1]  # newest first
    before = _before(row, history, evidence.kinds)
    if before:
        reasons.append(Reason(before, row))
    if "item_to_item" in proposed_by:
        together = arrays.statistics.together
        weights = np.where(together.ids[recent] == row, together.weights[recent], 0.0).sum(axis=1)
        weights = weights * (recent != row)
        if weights.max(initial=0.0) > 0:
            reasons.append(Reason("goes_with", int(recent[int(weights.argmax())])))
    if matches:
        reasons.append(Reason("matches_intent"))
    others = recent[recent != row]
    if len(others):
        cosines = arrays.text_units[others] @ arrays.text_units[row]
        personal = not evidence.personal.isdisjoint(proposed_by)
        if cosines.max() > SIMILAR_COSINE:
            reasons.append(Reason("reads_like", int(others[int(cosines.argmax())])))
        elif not reasons and personal:
            near = arrays.item_units[others] @ arrays.item_units[row]
            reasons.append(Reason("for_you", int(others[int(near.argmax())])))
    popular = "popular" in proposed_by and evidence.popularity[row] >= POPULAR_EVENTS
    if popular and not reasons:
        reasons.append(Reason("popular"))
    return tuple(reasons)


def _before(row: int, history: History, kinds: Sequence[str]) -> str:
    """Return the strongest reason from past events on an item; empty without any.

    Kinds that the model does not know count as a view, the weakest.
    """
    done = {
        _HISTORY_REASONS.get(kinds[kind], "chosen_before") if 0 <= kind < len(kinds) else "viewed_before"
        for kind in history.kinds[history.items == row].tolist()
    }
    return next((reason for reason in _STRENGTHS if reason in done), "")
