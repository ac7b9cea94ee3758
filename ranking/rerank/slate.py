"""Which candidate stands where, once a list has rules: pins, places for exploration, caps and diversity."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from features.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from ranking.rerank.constraints import CONSTRAINTS, Constraint
from ranking.rerank.mmr import POOL, diversify, topk
from ranking.rerank.rules import Rules, boosted

PINNED = "pinned"
EXPLORATION = "exploration"
"""Sources of items that stand where they do because of a rule."""


@dataclass(frozen=True)
class Place:
    """One place of a list."""

    candidate: int
    """Position among the candidates."""
    rule: str = ""
    """`pinned` or `exploration`; empty where its score put it there."""


@dataclass(frozen=True)
class Arranged:
    """A list, as far as the candidates fill it."""

    places: list[Place]
    capped: bool
    """The list is too short, and candidates were left out for a cap: others may be found."""

    def among(self, positions: LongArray) -> Arranged:
        """Return the same list for candidates of which those arranged here have these positions."""
        return replace(self, places=[replace(p, candidate=int(positions[p.candidate])) for p in self.places])


def best_places(rows: IntArray, scores: FloatArray, units: FloatArray, k: int, diversity: float) -> Arranged:
    """Return the k best candidates, or, with diversity, the k that maximal marginal relevance chooses.

    Args:
        rows: candidates, padded with -1, [candidates].
        scores: their relevance, [candidates].
        units: unit vectors whose cosine is similarity, [items, dim].
        k: places.
        diversity: as `ranking.rerank.mmr.diversify`.

    """
    order = topk(rows, scores, k if diversity == 0 else POOL * k)
    if diversity > 0:
        order = order[diversify(scores[order], units[rows[order]], diversity, k)]
    return Arranged([Place(int(place)) for place in order[:k]], False)


def arrange(
    rows: IntArray,
    scores: FloatArray,
    units: FloatArray,
    events: FloatArray,
    k: int,
    diversity: float,
    rules: Rules,
    final: bool,
) -> Arranged:
    """Fill the next k places of a list.

    Args:
        rows: the candidates, pinned ones included, [candidates].
        scores: their relevance, [candidates].
        units: unit vectors whose cosine is similarity, [candidates, dim].
        events: how many events are known of each, [candidates].
        k: places.
        diversity: as `ranking.rerank.mmr.diversify`.
        rules: the pins are those that may appear and are among the rows.
        final: no further candidates can be found: where these end, the pins that are left follow.
    """
    at = {int(row): place for place, row in enumerate(rows.tolist())}
    pins = {pin.position: at[pin.row] for pin in rules.pins}
    taken = np.concatenate([rules.shown, np.array([pin.row for pin in rules.pins], dtype=np.int32)])
    constraints = [rule(rows, rules, taken) for rule in CONSTRAINTS]
    free = np.ones(len(rows), dtype=np.bool_)
    free[list(pins.values())] = False
    score = boosted(scores, rows, rules.boosts)
    order = np.lexsort((rows, -score))
    order = order[free[order]]
    unsure = _unsure(rows, scores, score, events, order[k:], rules)
    chooser = _Chooser(order, score[order], units, diversity, k)
    places: list[Place] = []
    while len(places) < k:
        position = rules.before + len(places) + 1
        if position in pins:
            places.append(Place(pins.pop(position), PINNED))
            chooser.chosen(places[-1].candidate)
            continue
        able = free & _open(constraints)
        rule = ""
        explored = unsure[able[unsure]][:1] if _explores(position, rules) else unsure[:0]
        if len(explored):
            choice, rule = int(explored[0]), EXPLORATION
        else:
            found = chooser.next(able)
            if found is None:
                break
            choice = found
        places.append(Place(choice, rule))
        free[choice] = False
        for constraint in constraints:
            constraint.take(choice)
        chooser.chosen(choice)
    capped = len(places) < k and bool((free & ~_open(constraints)).any())
    if len(places) < k and (final or not capped):
        last = [Place(pins[position], PINNED) for position in sorted(pins)]
        places += last[: k - len(places)]
    return Arranged(places, capped)


def _open(constraints: Sequence[Constraint]) -> BoolArray:
    """Return which candidates no constraint shuts out, [candidates]."""
    able: BoolArray = np.logical_and.reduce([constraint.open for constraint in constraints])
    return able


class _Chooser:
    """Gives the best candidate that is left, or by maximal marginal relevance; see `ranking.rerank.mmr`."""

    def __init__(
        self, order: LongArray, score: FloatArray, units: FloatArray, diversity: float, k: int
    ) -> None:
        """Take the candidates in order, best first, with their scores in that order."""
        self._order, self._units, self._diversity = order, units, diversity
        self._pool = min(len(order), POOL * k)
        top = score[: self._pool].astype(np.float64)
        span = float(top[0] - top[-1]) if len(top) else 0.0
        self._relevance = (score - top[-1]) / span if span > 0 else np.ones(len(order))
        self._similarity = np.zeros(len(order))

    def next(self, able: BoolArray) -> int | None:
        """Return the next candidate among those that may be given a place; None where there is none."""
        left = np.flatnonzero(able[self._order])
        if len(left) == 0:
            return None
        if self._diversity == 0:
            return int(self._order[left[0]])
        # Candidates beyond the pool stand in for those of it that caps have shut out.
        pool = left[left < self._pool]
        pool = left[: self._pool] if len(pool) == 0 else pool
        value = (1.0 - self._diversity) * self._relevance[pool] - self._diversity * self._similarity[pool]
        return int(self._order[pool[int(value.argmax())]])

    def chosen(self, candidate: int) -> None:
        """Remember what the list holds."""
        if self._diversity > 0 and len(self._order):
            self._similarity = np.maximum(self._similarity, self._units[self._order] @ self._units[candidate])


def _explores(position: int, rules: Rules) -> bool:
    """Tell whether a place is one for exploration; they lie evenly, from a start that the seed decides."""
    start = float(_uniform(np.zeros(1, dtype=np.int64), rules.seed)[0])
    share = rules.exploration
    return math.floor(position * share + start) > math.floor((position - 1) * share + start)


def _unsure(
    rows: IntArray,
    scores: FloatArray,
    moved: FloatArray,
    events: FloatArray,
    outside: LongArray,
    rules: Rules,
) -> LongArray:
    """Return the candidates to explore, in the order in which they are.

    They are drawn without replacement among the candidates that would not be in the list by themselves, an
    item of which n events are known with weight 1 / sqrt(1 + n), which is how the uncertainty of a rate
    falls. The draw of an item depends on itself and the seed alone (Gumbel's trick), so another page, for
    which other candidates are found, goes on in the same order. Buried items are not explored.
    """
    if rules.exploration == 0:
        return outside[:0]
    able = outside[moved[outside] >= scores[outside]]
    drawn = _uniform(rows[able].astype(np.int64) + 1, rules.seed)
    keys = -0.5 * np.log1p(events[able]) - np.log(-np.log(drawn))
    return able[np.lexsort((rows[able], -keys))]


def _uniform(numbers: LongArray, seed: int) -> npt.NDArray[np.float64]:
    """Return a number in (0, 1) for each number under a seed (splitmix64, Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
