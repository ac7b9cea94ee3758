"""Why an item is in a list, in terms of the shopper's own history."""

from __future__ import annotations

import numpy as np

from features.candidates import RECENT, SOURCES, ItemArrays
from features.histories import INTEREST
from ranking.requests import History, Reason


def explain(row: int, sources: int, history: History, arrays: ItemArrays) -> tuple[Reason, ...]:
    """Return the reasons for an item, the strongest first.

    Args:
        row: the recommended item.
        sources: its source bit mask.
        history: what the list was made from.
        arrays: item-side arrays.

    """
    reasons: list[Reason] = []
    recent = history.items[-2 * RECENT :][::-1]  # newest first
    if len(recent) and row in history.items[history.kinds != INTEREST]:
        reasons.append(Reason("bought_before", row))
    if sources >> SOURCES.index("item_to_item") & 1:
        together = arrays.statistics.together
        weights = np.where(together.ids[recent] == row, together.weights[recent], 0.0).sum(axis=1)
        weights = weights * (recent != row)
        if weights.max(initial=0.0) > 0:
            reasons.append(Reason("goes_with", int(recent[int(weights.argmax())])))
    if sources >> SOURCES.index("intent") & 1:
        reasons.append(Reason("matches_intent"))
    others = recent[recent != row]
    if len(others):
        cosines = arrays.text_units[others] @ arrays.text_units[row]
        user, co_purchase, new, items, text = (
            sources >> SOURCES.index(s) & 1
            for s in ("user_vector", "co_purchase", "new_items", "item_to_item", "text_neighbours")
        )
        user = user or co_purchase or new
        # A source that looks further back than this may have found the item; its reason is told all the same.
        if cosines.max() > 0.6 or (text and not reasons and not user and not items):
            reasons.append(Reason("reads_like", int(others[int(cosines.argmax())])))
        elif not reasons and (user or items):
            near = arrays.item_units[others] @ arrays.item_units[row]
            reasons.append(Reason("for_you", int(others[int(near.argmax())])))
    if sources >> SOURCES.index("popular") & 1 and not reasons:
        reasons.append(Reason("popular"))
    return tuple(reasons)
