"""Prefixes of histories, such as training events, read in blocks of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from features.data.dataset import BoolArray, Events, IntArray, LongArray

BLOCK: Final = 1 << 18
"""Events read at a time; what is computed for each takes up to a few hundred bytes."""
_WORD: Final = 512
"""Positions that share a count in `PackedPositions`: 64 bytes, a line of the cache."""


def prefix_blocks(events: Events, end: LongArray, size: int = BLOCK) -> Iterator[LongArray]:
    """Yield the positions before `end` in ascending order, those of `size` events at a time.

    Args:
        events: all events.
        end: position after each user's prefix, [users].
        size: events of a block, in or out of a prefix.
    """
    for start in range(0, len(events), size):
        positions = np.arange(start, min(start + size, len(events)), dtype=np.int64)
        yield positions[positions < end[events.user[start : start + size]]]


def user_blocks(offsets: LongArray, size: int = BLOCK) -> Iterator[tuple[int, int]]:
    """Yield ranges of users that have at most `size` events together; a longer history has one of its own.

    Args:
        offsets: slice of each user, [users + 1].
        size: events of a block.
    """
    first, users = 0, len(offsets) - 1
    while first < users:
        last = int(np.searchsorted(offsets, offsets[first] + size, side="right")) - 1
        yield first, max(min(last, users), first + 1)
        first = max(min(last, users), first + 1)


def drawn_users(events: LongArray, most: int, seed: int, least: int = 1) -> IntArray:
    """Return the rows of users with `most` events together, ascending: all of them, or a sample.

    A sample has at least half of `most` events, or all users that fit: a user who alone has more than what is
    left is passed over until then, as one with the events of thousands would otherwise end the sample.

    Args:
        events: events of each user, [users].
        most: events of all drawn users at most; 0 draws all.
        seed: of the sample, of users with events.
        least: events that a drawn user stands for, where each takes memory of its own: at most `most / least`
            are drawn.
    """
    limit = most // least
    if most == 0 or (events.sum() <= most and len(events) <= limit):
        return np.arange(len(events), dtype=np.int32)
    order = np.random.default_rng(seed).permutation(np.flatnonzero(events))
    while True:
        total = np.cumsum(events[order[:limit]])
        fit = int(np.searchsorted(total, most, side="right"))
        if fit == len(total) or (fit > 0 and 2 * total[fit - 1] >= most):
            return np.sort(order[:fit]).astype(np.int32)
        order = np.delete(order, fit)  # with over half of `most`: there are few such users


def item_counts(events: Events, end: LongArray, items: int, size: int = BLOCK) -> LongArray:
    """Return the number of events of each item before `end`, [items]; arguments as of `prefix_blocks`."""
    counts = np.zeros(items, dtype=np.int64)
    for positions in prefix_blocks(events, end, size):
        counts += np.bincount(events.item[positions], minlength=items)
    return counts


@dataclass(frozen=True)
class PackedPositions:
    """Some of the positions of the events, one bit for each event, and the n-th of them."""

    bits: npt.NDArray[np.uint8]  # [words, 64] of each position, the highest bit first
    before: LongArray  # [words + 1] chosen positions in the words before

    @classmethod
    def of(
        cls,
        events: Events,
        end: LongArray,
        chosen: Callable[[LongArray], BoolArray],
        size: int = BLOCK,
    ) -> PackedPositions:
        """Choose positions before `end`, in blocks.

        Args:
            events: all events.
            end: position after each user's prefix, [users].
            chosen: returns which of some positions are chosen, [positions].
            size: events of a block, a multiple of 512.
        """
        words = -(-len(events) // _WORD)
        bits = np.zeros((words, _WORD // 8), dtype=np.uint8)
        counts = np.zeros(words + 1, dtype=np.int64)
        for number, positions in enumerate(prefix_blocks(events, end, size)):
            first = number * size
            flags = np.zeros(-(-min(size, len(events) - first) // _WORD) * _WORD, dtype=np.bool_)
            flags[positions[chosen(positions)] - first] = True
            word = slice(first // _WORD, first // _WORD + len(flags) // _WORD)
            bits[word] = np.packbits(flags.reshape(-1, _WORD), axis=1)
            counts[word.start + 1 : word.stop + 1] = flags.reshape(-1, _WORD).sum(axis=1)
        return cls(bits, np.cumsum(counts))

    def __len__(self) -> int:
        return int(self.before[-1])

    def at(self, numbers: LongArray) -> LongArray:
        """Return the chosen positions with these numbers, counted from 0 in ascending order."""
        word = np.searchsorted(self.before, numbers, side="right") - 1
        flags = np.unpackbits(self.bits[word], axis=1)  # [numbers, 512]
        rank = np.cumsum(flags, axis=1, dtype=np.int32)
        place = np.argmax(rank > (numbers - self.before[word])[:, None], axis=1)
        positions: LongArray = word * _WORD + place
        return positions
