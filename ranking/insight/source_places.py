"""The second stage of a trace: where an item stands in each candidate source."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from features.data.dataset import BoolArray
from ranking.recommender import Recommender
from ranking.retrieval.limits import Limits
from ranking.sources.contract import CandidateSource, SourceRequest
from ranking.sources.registry import quota_of
from ranking.stages import Stages

FIRST = 256
"""Places that are looked at first beyond a quota."""
GROWTH = 8
"""How many times as many are looked at next."""


@dataclass(frozen=True)
class SourcePlace:
    """An item in the proposals of one source."""

    source: str
    setting: str | None
    """Setting of the quota; None for a source with a fixed one."""
    quota: int
    place: int | None
    """From 1; within the quota it is proposed. None where the source would not propose it at any quota."""
    reason: str = ""
    """Why it would not, in words; empty with a place."""

    @property
    def proposes(self) -> bool:
        """Whether the item is among its proposals."""
        return self.place is not None and self.place <= self.quota


def source_places(recommender: Recommender, stages: Stages, row: int) -> tuple[SourcePlace, ...]:
    """Return the place of an item in every source; of one that is not allowed, as if it alone were.

    Args:
        recommender: that made the list.
        stages: of a block with a single request.
        row: the item.

    """
    limits = admitting(stages.filtered.limits, row, recommender.items)
    request = recommender.source_request(
        stages.filtered.batch, limits, stages.users, stages.filtered.intents, stages.config
    )
    return tuple(_place(source, request, row) for source in recommender.sources.sources)


def admitting(limits: Limits, row: int, items: int) -> Limits:
    """Return the limits of a single query with one row allowed; deleted rows stay out of every index."""
    excluded = limits.excluded[limits.excluded != row]
    allowed = limits.allowed[0]
    if allowed is not None and not allowed[row]:
        allowed = allowed.copy()
        allowed[row] = True
    hidden = limits.hidden
    return replace(limits, excluded=excluded, allowed=[allowed], hidden=hidden)


def _place(source: CandidateSource, request: SourceRequest, row: int) -> SourcePlace:
    quota = quota_of(source, request.config)
    setting = source.quota if isinstance(source.quota, str) else None
    if quota == 0:
        return SourcePlace(source.name, setting, quota, None, "switched off: its quota is 0")
    depth = quota
    while True:
        proposal = source.propose(request, depth)
        if proposal is None:
            return SourcePlace(source.name, setting, quota, None, _no_input(source.name))
        rows = proposal.rows[0]
        found = np.flatnonzero(rows == row)
        if len(found):
            return SourcePlace(source.name, setting, quota, int(found[0]) + 1)
        if depth >= request.items or int((rows >= 0).sum()) < depth:
            reason = _reason(source.name, request, row)
            return SourcePlace(source.name, setting, quota, None, reason)
        depth = min(max(FIRST, GROWTH * depth), request.items)


def _no_input(source: str) -> str:
    reasons = {
        "intent": "the request has no text query",
        "co_purchase": "the bundle has no co-purchase factors",
    }
    return reasons.get(source, "neither the bundle nor the request has anything for it to search with")


def _reason(source: str, request: SourceRequest, row: int) -> str:
    """Return why a source proposes an item at no quota."""
    hidden = request.limits.hidden
    if hidden is not None and row < len(hidden) and hidden[row]:
        return "the item is deleted"
    history, statistics = request.batch.items, request.arrays.statistics
    newest = min(len(history), request.config.recent_items)
    counted = int(statistics.count[row])
    count = "1 event" if counted == 1 else f"{counted:,} events"
    reasons = {
        "user_vector": "no history to search with",
        "item_to_item": f"none of the newest {newest} events is of an item that it is often chosen beside",
        "text_neighbours": f"none of the newest {newest} events is of an item with a similar text",
        "repeat": "the history has no event of it",
        "new_items": f"the item is not new: the bundle counts {count} of it",
        "co_purchase": "no event of the history is of an item with co-purchase factors",
        "intent": "neither its words nor its text is near the text query",
    }
    searched: dict[str, BoolArray | bool] = {
        "user_vector": bool(request.users.tower.any()),
        "co_purchase": bool(request.users.factors.any()),
        "new_items": statistics.count[row] == 0,
    }
    if searched.get(source, False):
        return "its search does not reach it"
    if len(history) == 0 and source in ("item_to_item", "text_neighbours", "co_purchase", "repeat"):
        return "no history to search with"
    return reasons.get(source, "it does not propose this item")
