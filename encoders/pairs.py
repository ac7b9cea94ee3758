"""Stage one's training pairs: an item and one that the same shopper chose soon after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from features.dataset import Events, FloatArray, IntArray, LongArray
from features.splits import ragged_ranges


@dataclass(frozen=True)
class PairBatch:
    """Pairs of one forward pass; everything [pairs]."""

    user: IntArray
    anchor: IntArray  # catalogue rows
    positive: IntArray  # catalogue rows
    weight: FloatArray


class PairSampler:
    """Draws pairs from training prefixes; the same seed draws the same pairs."""

    def __init__(
        self, events: Events, end: LongArray, kind_weights: FloatArray, text_ids: IntArray, window: int
    ) -> None:
        """Prepare to draw.

        Args:
            events: all events.
            end: training prefix per user, [users].
            kind_weights: weight per event kind; a pair counts as much as its positive's kind.
            text_ids: [items] equal for items whose texts are equal; such a pair teaches nothing.
            window: how many events later the positive may be.

        """
        self.events = events
        self.kind_weights = kind_weights
        self.text_ids = text_ids
        self.window = window
        begin = events.offsets[:-1]
        # A positive needs an event shortly before it that reads differently.
        later = ragged_ranges(begin + 1, np.maximum(end - begin - 1, 0))
        read = text_ids[events.item]
        usable = np.zeros(len(later), dtype=bool)
        for distance in range(1, window + 1):
            earlier = np.maximum(later - distance, events.offsets[events.user[later]])
            usable |= read[earlier] != read[later]
        self.positions = later[usable]
        positions = ragged_ranges(begin, end - begin)
        owners = np.repeat(np.arange(events.users, dtype=np.int64), end - begin)
        items = len(text_ids)
        self._items = items
        self._history_keys = np.unique(owners * items + events.item[positions])
        counts = np.bincount(events.item[positions], minlength=items).astype(np.float64)
        self.log_q = np.log((counts + 1.0) / (counts.sum() + items)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.positions)

    def batches(self, count: int, batch_size: int, seed: int) -> Iterator[PairBatch]:
        """Yield `count` batches of `batch_size` pairs (fewer, but one, where most draws repeat an item)."""
        rng = np.random.default_rng(seed)
        events = self.events
        for _ in range(count):
            keep = np.zeros(0, dtype=np.int64)
            while len(keep) == 0:
                # Repeat purchases are drawn and thrown away, so draw more than needed.
                later = rng.choice(self.positions, size=3 * batch_size)
                reach = np.minimum(later - events.offsets[events.user[later]], self.window)
                earlier = later - 1 - rng.integers(0, reach)
                anchor, positive = events.item[earlier], events.item[later]
                keep = np.flatnonzero(self.text_ids[anchor] != self.text_ids[positive])[:batch_size]
            later = later[keep]
            yield PairBatch(
                events.user[later], anchor[keep], positive[keep], self.kind_weights[events.kind[later]]
            )

    def false_negatives(self, batch: PairBatch, candidates: IntArray) -> np.ndarray:
        """Tell which candidates the pair's user also chose or read the same, bool [pairs, candidates]."""
        keys = batch.user[:, None].astype(np.int64) * self._items + candidates[None, :]
        place = np.minimum(np.searchsorted(self._history_keys, keys), len(self._history_keys) - 1)
        chosen = self._history_keys[place] == keys
        same: np.ndarray = self.text_ids[batch.positive][:, None] == self.text_ids[candidates][None, :]
        hidden: np.ndarray = chosen | same
        return hidden
