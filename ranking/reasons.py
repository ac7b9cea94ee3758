"""Why an item is in a list, in terms of the shopper's own history; only what is true of it is said."""

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

ALIKE: Final = 0.6
"""Cosine of reduced text vectors from which on two items are said to read alike; by chance it is around 0."""
LATELY: Final = 0.5
"""Events, halved every 14 days, from which on an item may be called popular right now."""
_BEFORE: Final = {
    schema.IMPRESSION: "",
    "purchase": "bought_before",
    **dict.fromkeys(schema.CLICK_KINDS, "viewed_before"),
}
"""What is said of an item that the shopper had to do with, by event kind; `chosen_before` of other kinds."""
_STRENGTHS: Final = ("bought_before", "chosen_before", "viewed_before")


@dataclass(frozen=True)
class Evidence:
    """What reasons are read from."""

    arrays: ItemArrays
    kinds: Sequence[str]
    """Event kinds, strongest first."""
    popularity: FloatArray
    """[items] events, halved every 14 days."""
    personal: frozenset[str] = frozenset()
    """Names of the sources that choose by the shopper's history."""


def explain(
    row: int, proposed_by: Collection[str], history: History, evidence: Evidence, matches: bool = False
) -> tuple[Reason, ...]:
    """Return the reasons for an item, the strongest first; none where none is known to be true.

    Args:
        row: the recommended item.
        proposed_by: names of the sources that proposed it.
        history: what the list was made from.
        evidence: what is known of items.
        matches: whether the item fits the words that were said.

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
        if cosines.max() > ALIKE:
            reasons.append(Reason("reads_like", int(others[int(cosines.argmax())])))
        elif not reasons and personal:
            near = arrays.item_units[others] @ arrays.item_units[row]
            reasons.append(Reason("for_you", int(others[int(near.argmax())])))
    popular = "popular" in proposed_by and evidence.popularity[row] >= LATELY
    if popular and not reasons:
        reasons.append(Reason("popular"))
    return tuple(reasons)


def _before(row: int, history: History, kinds: Sequence[str]) -> str:
    """Return what the shopper has done with an item at most; empty for nothing.

    A kind that the model does not know may be anything from a look on.
    """
    done = {
        _BEFORE.get(kinds[kind], "chosen_before") if 0 <= kind < len(kinds) else "viewed_before"
        for kind in history.kinds[history.items == row].tolist()
    }
    return next((reason for reason in _STRENGTHS if reason in done), "")
