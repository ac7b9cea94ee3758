"""Exploration: positions of a list that go to random items with few events, and the probabilities of that.

Positions are evenly spaced, with an offset drawn from the seed; items are drawn without replacement. What is
placed by score moves down by the explored positions before it, and the last of it leaves the page.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt

from features.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from ranking.rerank.rules import Rules

Doubles = npt.NDArray[np.float64]


class ExploredPositions:
    """Which positions of a page are explored, and how many of them over all seeds."""

    def __init__(self, rules: Rules, k: int, pinned: Collection[int]) -> None:
        """Plan a page.

        Args:
            rules: of the list; its exploration is above 0.
            k: positions of the page.
            pinned: positions that pins take, from 1, counted over all pages.

        """
        share, before = rules.exploration, rules.before
        offset = float(_uniform(np.zeros(1, dtype=np.int64), rules.seed)[0])
        # The pattern of a page changes with the offset at these values only.
        ends = np.unique(1.0 - (before + np.arange(k + 1)) * share % 1.0)
        ends = np.unique(np.append(ends[(ends > 0) & (ends < 1)], 1.0))
        starts = np.append(0.0, ends[:-1])
        offsets = np.append((starts + ends) / 2, offset)[:, None]
        passed = np.floor((before + np.arange(k + 1)) * share + offsets)  # [offsets + 1, positions + 1]
        explored = np.diff(passed, axis=1) > 0
        pins = [position - before - 1 for position in pinned if before < position <= before + k]
        explored[:, pins] = False
        self._before = before
        self._explored: BoolArray = explored[-1]
        self._chance: Doubles = ends - starts  # [offsets]
        self._count = explored[:-1].sum(axis=1)  # [offsets]
        self._open = k - len(pins)

    def is_explored(self, position: int) -> bool:
        """Return whether a position is explored."""
        return bool(self._explored[position - self._before - 1])

    def expected(self) -> float:
        """Return the mean number of explored positions of the page."""
        return float(self._chance @ self._count)

    def chance_of_score(self, place: int) -> float:
        """Return the probability that the page has room for what is in this place by score, from 1."""
        return float(self._chance[self._open - self._count >= place].sum())


class ExploredItems:
    """The candidates that explored positions may get, in the order in which they get them."""

    def __init__(
        self,
        rows: IntArray,
        scores: FloatArray,
        moved: FloatArray,
        events: FloatArray,
        outside: LongArray,
        rules: Rules,
    ) -> None:
        """Draw without replacement from the candidates outside the list.

        An item with n events has the weight 1 / sqrt(1 + n), as the uncertainty of a rate falls. The draw of
        an item depends on its row and the seed alone (Gumbel top-k trick), so that the next page, with other
        candidates, continues the order. Demoted items are not explored.

        Args:
            rows: all candidates, [candidates].
            scores: their relevance, [candidates].
            moved: the relevance with boosts, [candidates].
            events: number of events of each, [candidates].
            outside: candidates that would not be in the list.
            rules: of the list.

        """
        able = outside[moved[outside] >= scores[outside]] if rules.exploration else outside[:0]
        drawn = _uniform(rows[able].astype(np.int64) + 1, rules.seed)
        keys = -0.5 * np.log1p(events[able]) - np.log(-np.log(drawn))
        self.order: LongArray = able[np.lexsort((rows[able], -keys))]
        self._weights: Doubles = 1.0 / np.sqrt(1.0 + events[self.order].astype(np.float64))
        self._taken: BoolArray = np.zeros(len(self.order), dtype=np.bool_)

    def next(self, able: BoolArray) -> int | None:
        """Return the next candidate of a mask [candidates]; None where there is none."""
        left = self.order[able[self.order]]
        return int(left[0]) if len(left) else None

    def chance(self, candidate: int, able: BoolArray, draws: float) -> float:
        """Return the probability that a candidate is among some draws, and note that it was drawn.

        Each draw counts as if it were the first: exact for equal weights and for a single draw.

        Args:
            candidate: the candidate.
            able: mask of those that can be drawn now, [candidates]; what was drawn before could be, too.
            draws: their mean number.

        """
        self._taken |= self.order == candidate
        pool = able[self.order] | self._taken
        weight = self._weights[self.order == candidate].sum()
        return float(min(draws * weight / self._weights[pool].sum(), 1.0))


def _uniform(numbers: LongArray, seed: int) -> Doubles:
    """Return a number in (0, 1) for each number under a seed (splitmix64, Steele et al., OOPSLA 2014)."""
    with np.errstate(over="ignore"):
        mixed = numbers.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(seed % 2**64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return ((mixed >> np.uint64(11)).astype(np.float64) + 0.5) / 2.0**53
