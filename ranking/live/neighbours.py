"""Which items are found near each other, counted on from a bundle's lists of neighbours.

A bundle has the strongest neighbours of each item and their cosines, not the counts behind them. What an item
occurs near others in all is estimated from its number of events, each of which has a full window on both
sides; a count is then the cosine times the root of both sums. From there on counts and sums are exact, in a
table of bounded size from which the pairs that have not been met for longest are dropped.

A new event scales the lists of the items that it is about, and puts the pairs that it makes where they
belong. What its neighbours' lists say of an item follows once the item's sums have grown by a tenth: an item
whose first buyer bought another rare one, too, must not stay that one's closest neighbour when thousands have
bought it with something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from features.data.dataset import FloatArray, IntArray, LongArray
from features.data.statistics import Neighbours
from features.kernels.compiled import compiled

SLOTS: Final = 1 << 20
"""Places of a table; half of them are used before the older half of the pairs is dropped. A table takes 12
bytes for each of them, twice, and there are two tables."""
_GROWN: Final = 1.1
"""How much the sums of an item may grow until its neighbours' lists are set right."""
_EMPTY: Final = -1
_SPREAD: Final = np.int64(-7046029254386353131)


@dataclass(frozen=True)
class Near:
    """Pairs of events that lie near each other in one shopper's history."""

    first: IntArray  # [pairs] row of the earlier one
    second: IntArray  # [pairs] row of the later one
    weight: FloatArray  # [pairs] 1 / distance


class _Lists(NamedTuple):
    """Lists of neighbours and the counts of their pairs: those met lately, and those met before them."""

    ids: IntArray  # [items, k]
    weights: FloatArray  # [items, k]
    keys: LongArray  # [slots] row << 32 | row
    sums: FloatArray  # [slots]
    older_keys: LongArray  # [slots]
    older_sums: FloatArray  # [slots]
    used: LongArray  # [1] slots that are not empty


class _Pairs:
    """Counts of pairs: those met lately, and those met before them."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.recent = self._table()
        self.older = self.recent
        self.used: LongArray = np.zeros(1, dtype=np.int64)

    def make_room(self, pairs: int) -> None:
        """See to it that so many more pairs can be entered; counts that were not met lately are dropped."""
        if 2 * (int(self.used[0]) + pairs) > self._slots:
            self.older, self.recent = self.recent, self._table()
            self.used[0] = 0

    def of(self, near: Neighbours) -> _Lists:
        """Return the counts beside the lists that they belong to."""
        return _Lists(near.ids, near.weights, *self.recent, *self.older, self.used)

    def _table(self) -> tuple[LongArray, FloatArray]:
        return np.full(self._slots, _EMPTY, dtype=np.int64), np.zeros(self._slots, dtype=np.float32)


class LiveNeighbours:
    """Follows which items are found near each other; for the thread that runs the model."""

    def __init__(self, count: FloatArray, window: int, items: int, slots: int = SLOTS) -> None:
        """Begin with a bundle's numbers of events.

        Args:
            count: of each of the bundle's items.
            window: events between which two items count as near.
            items: most rows that there are ever going to be.
            slots: places of a table of pairs, a power of two.

        """
        full = sum(1.0 / distance for distance in range(1, window + 1))
        self._base: FloatArray = np.zeros(items, dtype=np.float32)
        self._base[: len(count)] = count * np.float32(full)
        self._out, self._into = self._base.copy(), self._base.copy()
        self._settled: FloatArray = 2 * self._base
        """Of each item the sum of both, as its neighbours' lists know it."""
        self._slots = slots
        self._follow, self._together = _Pairs(slots), _Pairs(slots)

    def add(self, near: Near, follow: Neighbours, together: Neighbours) -> None:
        """Count pairs, and bring the lists of their items up to date in place.

        Args:
            near: the pairs, in the order in which they happened.
            follow: what comes soon after each item, [items, k].
            together: what is found near each item, [items, k].

        """
        step = self._slots // 4
        for start in range(0, len(near.first), step):
            part = slice(start, start + step)
            for pairs in (self._follow, self._together):
                pairs.make_room(len(near.first[part]))
            _count(
                near.first[part], near.second[part], near.weight[part], self._base, self._out, self._into,
                self._settled, self._follow.of(follow), self._together.of(together),
            )  # fmt: skip


@compiled()
def _slot(keys: LongArray, key: np.int64) -> np.int64:
    """Return where a pair is in a table, or would be."""
    spread = key * _SPREAD
    place = np.int64((spread ^ (spread >> 32)) & (len(keys) - 1))
    while keys[place] != _EMPTY and keys[place] != key:
        place = np.int64((place + 1) & (len(keys) - 1))
    return place


@compiled()
def _weight_of(ids: IntArray, weights: FloatArray, row: int) -> float:
    """Return the weight of a row in a list; 0 where it is not in it."""
    weight = 0.0
    for place in range(len(ids)):
        if ids[place] == row:
            weight = float(weights[place])
    return weight


@compiled()
def _put(ids: IntArray, weights: FloatArray, row: int, weight: float) -> None:
    """Give a row a weight in one list, in place; where it is new, the weakest one makes room."""
    length, place = len(ids), -1
    for at in range(length):
        if ids[at] == row or ids[at] < 0:
            place = at
            break
    if place < 0:
        if length == 0 or weights[length - 1] >= weight:
            return
        place = length - 1
    ids[place], weights[place] = row, weight
    while place > 0 and weights[place - 1] < weights[place]:
        ids[place - 1], ids[place] = ids[place], ids[place - 1]
        weights[place - 1], weights[place] = weights[place], weights[place - 1]
        place -= 1
    while place + 1 < length and ids[place + 1] >= 0 and weights[place + 1] > weights[place]:
        ids[place + 1], ids[place] = ids[place], ids[place + 1]
        weights[place + 1], weights[place] = weights[place], weights[place + 1]
        place += 1


@compiled()
def _gain(lists: _Lists, key: np.int64, gained: float, known: float) -> float:
    """Add to the count of a pair, which is `known` where no table has it; return the count."""
    place = _slot(lists.keys, key)
    if lists.keys[place] == _EMPTY:
        older = _slot(lists.older_keys, key)
        lists.sums[place] = lists.older_sums[older] if lists.older_keys[older] == key else known
        lists.keys[place] = key
        lists.used[0] += 1
    lists.sums[place] += gained
    count: float = lists.sums[place]
    return count


@compiled()
def _settle(row: int, out: FloatArray, into: FloatArray, follow: _Lists, together: _Lists) -> None:
    """Set right what the lists of an item's neighbours say of it; sums as of `_count`."""
    for place in range(together.ids.shape[1]):
        other = together.ids[row, place]
        if other < 0:
            return
        if _weight_of(together.ids[other], together.weights[other], row) > 0.0:
            _put(together.ids[other], together.weights[other], row, together.weights[row, place])
        if _weight_of(follow.ids[other], follow.weights[other], row) > 0.0:
            key = (np.int64(other) << 32) | np.int64(row)
            recent, older = _slot(follow.keys, key), _slot(follow.older_keys, key)
            count = np.float32(0.0)
            if follow.keys[recent] == key:
                count = follow.sums[recent]
            elif follow.older_keys[older] == key:
                count = follow.older_sums[older]
            if count > 0.0:
                _put(follow.ids[other], follow.weights[other], row, count / np.sqrt(out[other] * into[row]))


@compiled()
def _count(
    first: IntArray,
    second: IntArray,
    weights: FloatArray,
    base: FloatArray,
    out: FloatArray,
    into: FloatArray,
    settled: FloatArray,
    follow: _Lists,
    together: _Lists,
) -> None:
    """Count pairs one after another; see `LiveNeighbours.add`.

    Args:
        first: [pairs]
        second: [pairs]
        weights: what a pair adds to its count, [pairs].
        base: what the bundle's events add to either sum of an item, [most items].
        out: what follows an item, summed, [most items]; written to.
        into: what an item follows, summed, [most items]; written to.
        settled: the sum of both that other lists know of, [most items]; written to.
        follow: written to.
        together: written to.

    """
    for pair in range(len(first)):
        i, j, gained = first[pair], second[pair], weights[pair]
        if i == j:
            continue
        former_out, former_i, former_j = out[i], out[i] + into[i], out[j] + into[j]
        out[i] += gained
        into[j] += gained
        sum_i, sum_j = out[i] + into[i], out[j] + into[j]
        follow.weights[i] *= np.float32(np.sqrt(former_out / out[i]))
        together.weights[i] *= np.float32(np.sqrt(former_i / sum_i))
        together.weights[j] *= np.float32(np.sqrt(former_j / sum_j))

        # What the bundle's list says was as of the bundle's sum of the other item.
        known = _weight_of(follow.ids[i], follow.weights[i], j) * np.sqrt(out[i] * base[j])
        count = _gain(follow, (np.int64(i) << 32) | np.int64(j), gained, known)
        _put(follow.ids[i], follow.weights[i], j, count / np.sqrt(out[i] * into[j]))

        known = max(
            _weight_of(together.ids[i], together.weights[i], j) * np.sqrt(sum_i * 2 * base[j]),
            _weight_of(together.ids[j], together.weights[j], i) * np.sqrt(sum_j * 2 * base[i]),
        )
        count = _gain(together, (np.int64(min(i, j)) << 32) | np.int64(max(i, j)), gained, known)
        cosine = count / np.sqrt(sum_i * sum_j)
        _put(together.ids[i], together.weights[i], j, cosine)
        _put(together.ids[j], together.weights[j], i, cosine)
        for row in (i, j):
            if out[row] + into[row] > _GROWN * settled[row]:
                settled[row] = out[row] + into[row]
                _settle(row, out, into, follow, together)
