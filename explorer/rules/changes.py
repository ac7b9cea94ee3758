"""A shopper's list before and after rules: places, and what came in and went out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from explorer.model import LoadedModel
from explorer.rules.rule_set import RuleSet
from ranking.types import History, RecommendedItem, Request


@dataclass(frozen=True)
class Place:
    """An item of the list after the rules."""

    item: RecommendedItem
    place: int
    """From 1."""
    before: int | None
    """Its place before; None where it was not in the list."""

    @property
    def moved(self) -> int:
        """Places that it moved up; negative is down, 0 for one that came in."""
        return 0 if self.before is None else self.before - self.place


@dataclass(frozen=True)
class Change:
    """One shopper's list before and after."""

    before: tuple[RecommendedItem, ...]
    after: tuple[Place, ...]
    gone: tuple[tuple[int, int], ...]
    """Row, and place before, of items that went out."""

    @property
    def differs(self) -> int:
        """Places of the list that hold another item."""
        kept = sum(1 for place in self.after if place.before == place.place)
        return max(len(self.before), len(self.after)) - kept


def request_of(model: LoadedModel, history: History, now: int, k: int, rules: RuleSet) -> Request:
    """Return the request for a list under rules.

    Args:
        model: the bundle, whose setting for seen items applies.
        history: of the shopper.
        now: Unix seconds.
        k: items.
        rules: of the list.

    """
    return Request(
        history=history,
        now=now,
        k=k,
        exclude_seen=model.bundle.exclude_seen,
        diversity=rules.diversity,
        novelty=rules.novelty,
        rules=rules.rules,
    )


def changes(
    model: LoadedModel, histories: Sequence[History], k: int, before: RuleSet, after: RuleSet
) -> list[Change]:
    """Return what rules change in the lists of some shoppers; each explores by a seed of its own."""
    lists = [
        model.recommender.recommend(
            [request_of(model, h, model.now, k, rules).explored_by(seed) for seed, h in enumerate(histories)]
        )
        for rules in (before, after)
    ]
    return [change(old.items, new.items) for old, new in zip(*lists, strict=True)]


def change(before: Sequence[RecommendedItem], after: Sequence[RecommendedItem]) -> Change:
    """Compare two lists."""
    places = {item.row: place for place, item in enumerate(before, 1)}
    kept = {item.row for item in after}
    return Change(
        tuple(before),
        tuple(Place(item, place, places.get(item.row)) for place, item in enumerate(after, 1)),
        tuple((row, place) for row, place in places.items() if row not in kept),
    )
