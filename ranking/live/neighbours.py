"""Co-occurrence of items, continued from a bundle's neighbour lists.

A bundle has the strongest neighbours of each item and their cosines, not the counts behind them. The marginal
sum of an item is estimated from its number of events, each with a full window on both sides; a count is then
the cosine times the root of both sums. From there on counts and sums are exact, in a hash table of bounded
size from which the least recently seen pairs are dropped.

A new event rescales the lists of its items and inserts its pairs. The entries of an item in its neighbours'
lists are refreshed once its sums have grown by a tenth: an item whose first buyer bought another rare one,
too, must not remain that one's closest neighbour when thousands have bought it with something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from features.data.dataset import FloatArray, IntArray, LongArray
from features.data.statistics import Neighbours
from features.kernels.compiled import compiled

SLOTS: Final = 1 << 20
"""Slots of a hash table, at most half used: then the older generation of pairs is dropped. A slot takes 12
bytes; there are two tables of two generations each."""
_REFRESH_GROWTH: Final = 1.1
"""Growth of an item's sums after which its entries in its neighbours' lists are refreshed."""
_EMPTY: Final = -1
_SPREAD: Final = np.int64(-7046029254386353131)


@dataclass(frozen=True)
class CoOccurrences:
    """Pairs of events near each other in one user's history."""

    first: IntArray  # [pairs] row of the earlier one
    second: IntArray  # [pairs] row of the later one
    weight: FloatArray  # [pairs] 1 / distance


class _Lists(NamedTuple):
    """Neighbour lists, and the counts of their pairs in two generations, recent and older."""

    ids: IntArray  # [items, k]
    weights: FloatArray  # [items, k]
    keys: LongArray  # [slots] row << 32 | row
    sums: FloatArray  # [slots]
    older_keys: LongArray  # [slots]
    older_sums: FloatArray  # [slots]
    used: LongArray  # [1] slots that are not empty


class _Pairs:
    """Counts of pairs in two generations, recent and older."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self.recent = self._table()
        self.older = self.recent
        self.used: LongArray = np.zeros(1, dtype=np.int64)

    def make_room(self, pairs: int) -> None:
        """Make room for more pairs; if necessary drop the older generation."""
        if 2 * (int(self.used[0]) + pairs) > self._slots:
            self.older, self.recent = self.recent, self._table()
            self.used[0] = 0

    def of(self, near: Neighbours) -> _Lists:
        """Return neighbour lists with these counts."""
        return _Lists(near.ids, near.weights, *self.recent, *self.older, self.used)

    def _table(self) -> tuple[LongArray, FloatArray]:
        return np.full(self._slots, _EMPTY, dtype=np.int64), np.zeros(self._slots, dtype=np.float32)


class LiveNeighbours:
    """Updates the neighbour lists; for the thread that runs the model."""

    def __init__(self, count: FloatArray, window: int, items: int, slots: int = SLOTS) -> None:
        """Start with a bundle's event counts.

        Args:
            count: events of each of the bundle's items.
            window: largest distance, in events, of co-occurring items.
            items: capacity in rows.
            slots: slots of a hash table, a power of two.

        """
        full = sum(1.0 / distance for distance in range(1, window + 1))
        self._base: FloatArray = np.zeros(items, dtype=np.float32)
        self._base[: len(count)] = count * np.float32(full)
        self._out, self._into = self._base.copy(), self._base.copy()
        self._settled: FloatArray = 2 * self._base
        """Sum of both for each item, as of the last refresh of its neighbours' lists."""
        self._slots = slots
        self._follow, self._together = _Pairs(slots), _Pairs(slots)

    def add(self, near: CoOccurrences, follow: Neighbours, together: Neighbours) -> None:
        """Count pairs, and update the lists of their items in place.

        Args:
            near: the pairs, oldest first.
            follow: neighbours after each item, [items, k].
            together: neighbours on either side of each item, [items, k].

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
    """Return the slot of a pair, or the empty one for it (linear probing)."""
    mixed = key * _SPREAD
    position = np.int64((mixed ^ (mixed >> 32)) & (len(keys) - 1))
    while keys[position] != _EMPTY and keys[position] != key:
        position = np.int64((position + 1) & (len(keys) - 1))
    return position


@compiled()
def _weight_of(ids: IntArray, weights: FloatArray, row: int) -> float:
    """Return the weight of a row in a list; 0 if absent."""
    weight = 0.0
    for position in range(len(ids)):
        if ids[position] == row:
            weight = float(weights[position])
    return weight


@compiled()
def _put(ids: IntArray, weights: FloatArray, row: int, weight: float) -> None:
    """Upsert a row's weight in a list, in place; a full list drops its weakest."""
    length, position = len(ids), -1
    for at in range(length):
        if ids[at] == row or ids[at] < 0:
            position = at
            break
    if position < 0:
        if length == 0 or weights[length - 1] >= weight:
            return
        position = length - 1
    ids[position], weights[position] = row, weight
    while position > 0 and weights[position - 1] < weights[position]:
        ids[position - 1], ids[position] = ids[position], ids[position - 1]
        weights[position - 1], weights[position] = weights[position], weights[position - 1]
        position -= 1
    while position + 1 < length and ids[position + 1] >= 0 and weights[position + 1] > weights[position]:
        ids[position + 1], ids[position] = ids[position], ids[position + 1]
        weights[position + 1], weights[position] = weights[position], weights[position + 1]
        position += 1


@compiled()
def _gain(lists: _Lists, key: np.int64, gained: float, known: float) -> float:
    """Add to the count of a pair, initially `known`; return the count."""
    position = _slot(lists.keys, key)
    if lists.keys[position] == _EMPTY:
        older = _slot(lists.older_keys, key)
        lists.sums[position] = lists.older_sums[older] if lists.older_keys[older] == key else known
        lists.keys[position] = key
        lists.used[0] += 1
    lists.sums[position] += gained
    count: float = lists.sums[position]
    return count


@compiled()
def _refresh_neighbours(
    row: int, out: FloatArray, into: FloatArray, follow: _Lists, together: _Lists
) -> None:
    """Refresh the entries of an item in its neighbours' lists; sums as in `_count`."""
    for position in range(together.ids.shape[1]):
        other = together.ids[row, position]
        if other < 0:
            return
        if _weight_of(together.ids[other], together.weights[other], row) > 0.0:
            _put(together.ids[other], together.weights[other], row, together.weights[row, position])
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
        weights: increment of a pair's count, [pairs].
        base: the bundle's part of either sum of an item, [capacity].
        out: sum of the pairs that an item is first in, [capacity]; written to.
        into: sum of the pairs that an item is second in, [capacity]; written to.
        settled: sum of both as of the last refresh, [capacity]; written to.
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

        # Cosines of the bundle's lists refer to the bundle's sums.
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
            if out[row] + into[row] > _REFRESH_GROWTH * settled[row]:
                settled[row] = out[row] + into[row]
                _refresh_neighbours(row, out, into, follow, together)
