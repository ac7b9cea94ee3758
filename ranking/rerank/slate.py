"""Slates: which candidate takes which position, under pins, exploration, caps and diversity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from features.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from ranking.rerank.constraints import CONSTRAINTS, Constraint
from ranking.rerank.exploration import ExploredItems, ExploredPositions
from ranking.rerank.mmr import POOL, diversify, topk
from ranking.rerank.rules import Rules, boosted

PINNED = "pinned"
EXPLORATION = "exploration"
"""Sources of items placed by a rule."""


@dataclass(frozen=True)
class SlateItem:
    """One position of a list."""

    candidate: int
    """Position among the candidates."""
    rule: str = ""
    """`pinned` or `exploration`; empty where it is placed by score."""
    propensity: float = 1.0
    """Probability over seeds that the item is on this page, see `ranking.rerank.exploration`; 1 without
    exploration. Caps and diversity are taken as they come."""


@dataclass(frozen=True)
class Slate:
    """The positions of a list that its candidates fill."""

    items: list[SlateItem]
    capped: bool
    """Whether it is too short while caps exclude candidates: further retrieval may extend it."""

    def among(self, positions: LongArray) -> Slate:
        """Return the slate for a larger set of candidates, which has the present ones at these positions."""
        return replace(self, items=[replace(p, candidate=int(positions[p.candidate])) for p in self.items])


def best_slate(rows: IntArray, scores: FloatArray, units: FloatArray, k: int, diversity: float) -> Slate:
    """Return a slate of the k best candidates, with diversity those chosen by maximal marginal relevance.

    Args:
        rows: candidates, padded with -1, [candidates].
        scores: their relevance, [candidates].
        units: unit vectors whose cosine is similarity, [items, dim].
        k: positions.
        diversity: as `ranking.rerank.mmr.diversify`.

    """
    order = topk(rows, scores, k if diversity == 0 else POOL * k)
    if diversity > 0:
        order = order[diversify(scores[order], units[rows[order]], diversity, k)]
    return Slate([SlateItem(int(position)) for position in order[:k]], False)


def fill_slate(
    rows: IntArray,
    scores: FloatArray,
    units: FloatArray,
    events: FloatArray,
    k: int,
    diversity: float,
    rules: Rules,
    final: bool,
) -> Slate:
    """Return the slate of the next k positions of a list.

    Args:
        rows: the candidates, pinned ones included, [candidates].
        scores: their relevance, [candidates].
        units: unit vectors whose cosine is similarity, [candidates, dim].
        events: number of events of each, [candidates].
        k: positions.
        diversity: as `ranking.rerank.mmr.diversify`.
        rules: of the list; all its pins are among the rows.
        final: no further candidates can be retrieved: the remaining pins follow the last candidate.
    """
    at = {int(row): position for position, row in enumerate(rows.tolist())}
    pins = {pin.position: at[pin.row] for pin in rules.pins}
    taken = np.concatenate([rules.shown, np.array([pin.row for pin in rules.pins], dtype=np.int32)])
    constraints = [rule(rows, rules, taken) for rule in CONSTRAINTS]
    free = np.ones(len(rows), dtype=np.bool_)
    free[list(pins.values())] = False
    score = boosted(scores, rows, rules.boosts)
    order = np.lexsort((rows, -score))
    order = order[free[order]]
    to_explore = ExploredItems(rows, scores, score, events, order[k:], rules)
    explored = ExploredPositions(rules, k, pins) if len(to_explore.order) else None
    chooser = _Chooser(order, score[order], units, diversity, k)
    items: list[SlateItem] = []
    while len(items) < k:
        position = rules.before + len(items) + 1
        if position in pins:
            items.append(SlateItem(pins.pop(position), PINNED))
            chooser.chosen(items[-1].candidate)
            continue
        able = free & _eligible(constraints)
        choice = chooser.next(able)
        if choice is None:
            break
        rule, propensity = "", 1.0
        drawn = None if explored is None else to_explore.next(able)
        if explored is not None and drawn is not None:
            if explored.is_explored(position):
                choice, rule = drawn, EXPLORATION
                propensity = to_explore.chance(drawn, able, explored.expected())
            else:
                place = 1 + sum(item.rule == "" for item in items)
                propensity = explored.chance_of_score(place)
        items.append(SlateItem(choice, rule, propensity))
        free[choice] = False
        for constraint in constraints:
            constraint.take(choice)
        chooser.chosen(choice)
    capped = len(items) < k and bool((free & ~_eligible(constraints)).any())
    if len(items) < k and (final or not capped):
        last = [SlateItem(pins[position], PINNED) for position in sorted(pins)]
        items += last[: k - len(items)]
    return Slate(items, capped)


def _eligible(constraints: Sequence[Constraint]) -> BoolArray:
    """Return the mask of the candidates that no constraint excludes, [candidates]."""
    able: BoolArray = np.logical_and.reduce([constraint.open for constraint in constraints])
    return able


class _Chooser:
    """Chooses the best remaining candidate, or by maximal marginal relevance; see `ranking.rerank.mmr`."""

    def __init__(
        self, order: LongArray, score: FloatArray, units: FloatArray, diversity: float, k: int
    ) -> None:
        """Start with the candidates, best first, and their scores in that order."""
        self._order, self._units, self._diversity = order, units, diversity
        self._pool = min(len(order), POOL * k)
        top = score[: self._pool].astype(np.float64)
        span = float(top[0] - top[-1]) if len(top) else 0.0
        self._relevance = (score - top[-1]) / span if span > 0 else np.ones(len(order))
        self._similarity = np.zeros(len(order))

    def next(self, able: BoolArray) -> int | None:
        """Return the next candidate of a mask [candidates]; None where there is none."""
        left = np.flatnonzero(able[self._order])
        if len(left) == 0:
            return None
        if self._diversity == 0:
            return int(self._order[left[0]])
        # Candidates beyond the pool replace those of it that caps exclude.
        pool = left[left < self._pool]
        pool = left[: self._pool] if len(pool) == 0 else pool
        value = (1.0 - self._diversity) * self._relevance[pool] - self._diversity * self._similarity[pool]
        return int(self._order[pool[int(value.argmax())]])

    def chosen(self, candidate: int) -> None:
        """Update the similarity to the list by a chosen candidate."""
        if self._diversity > 0 and len(self._order):
            self._similarity = np.maximum(self._similarity, self._units[self._order] @ self._units[candidate])
