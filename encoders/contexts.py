"""Stage one's training contexts: what a shopper chose, and what the same shopper chose next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from features.dataset import BoolArray, Events, FloatArray, IntArray, LongArray
from features.splits import ragged_ranges


@dataclass(frozen=True)
class ContextBatch:
    """Contexts of one forward pass; -1 pads a short one."""

    user: IntArray  # [contexts]
    context: IntArray  # [contexts, window] catalogue rows, oldest first, padded on the left
    positive: IntArray  # [contexts] catalogue rows
    weight: FloatArray  # [contexts]

    def rows(self) -> IntArray:
        """Return the distinct items of the batch."""
        both = np.concatenate([self.context.ravel(), self.positive])
        return np.unique(both[both >= 0]).astype(np.int32)


class ContextSampler:
    """Draws pieces of training histories; the same seed draws the same ones.

    A piece of n events gives up to n - 1 contexts that share their items. An item is read once per step
    however many contexts it takes part in, so a step of whole pieces learns several times as much from each
    text as a step of single pairs.
    """

    def __init__(
        self,
        events: Events,
        end: LongArray,
        kind_weights: FloatArray,
        text_ids: IntArray,
        window: int,
        piece: int,
    ) -> None:
        """Prepare to draw.

        Args:
            events: all events.
            end: training prefix per user, [users].
            kind_weights: weight per event kind; a context counts as much as its positive's kind.
            text_ids: [items] equal for items whose texts are equal; they teach nothing about each other.
            window: most events that make a context.
            piece: most events of one history in a batch.

        """
        self.events = events
        self.kind_weights = kind_weights
        self.text_ids = text_ids
        self.window = window
        self.piece = piece
        begin = events.offsets[:-1]
        # A positive needs an event shortly before it that reads differently.
        later = ragged_ranges(begin + 1, np.maximum(end - begin - 1, 0))
        self.positions = later[(self._contexts(later) >= 0).any(axis=1)]
        positions = ragged_ranges(begin, end - begin)
        owners = np.repeat(np.arange(events.users, dtype=np.int64), end - begin)
        items = len(text_ids)
        self._items = items
        self._history_keys = np.unique(owners * items + events.item[positions])
        counts = np.bincount(events.item[positions], minlength=items).astype(np.float64)
        self.log_q = np.log((counts + 1.0) / (counts.sum() + items)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.positions)

    def _contexts(self, later: LongArray) -> IntArray:
        """Return the items before each position that read differently, [positions, window], -1 elsewhere."""
        events = self.events
        earlier = later[:, None] - np.arange(self.window, 0, -1)
        inside = earlier >= events.offsets[events.user[later]][:, None]
        rows = events.item[np.maximum(earlier, 0)]
        different = self.text_ids[rows] != self.text_ids[events.item[later]][:, None]
        contexts: IntArray = np.where(inside & different, rows, -1).astype(np.int32)
        return contexts

    def batches(self, count: int, pieces: int, seed: int) -> Iterator[ContextBatch]:
        """Yield `count` batches of the contexts in `pieces` pieces of histories.

        A piece ends at a position drawn from all that can be positives: longer histories are read more often.
        """
        rng = np.random.default_rng(seed)
        events = self.events
        for _ in range(count):
            last = rng.choice(self.positions, size=pieces)
            first = np.maximum(events.offsets[events.user[last]], last - self.piece + 1)
            later = ragged_ranges(first + 1, last - first)
            start = np.repeat(first, last - first)
            contexts = self._contexts(later)
            # What lies before the piece is not read in this step.
            contexts[later[:, None] - np.arange(self.window, 0, -1) < start[:, None]] = -1
            keep = (contexts >= 0).any(axis=1)
            if not keep.any():  # all that was drawn reads like what came before it inside its piece
                later, contexts = last, self._contexts(last)
                keep = np.ones(len(last), dtype=np.bool_)
            later, contexts = later[keep], contexts[keep]
            yield ContextBatch(
                events.user[later], contexts, events.item[later], self.kind_weights[events.kind[later]]
            )

    def false_negatives(self, batch: ContextBatch, candidates: IntArray) -> BoolArray:
        """Tell which candidates the user chose too or read like the positive, [contexts, candidates]."""
        keys = batch.user[:, None].astype(np.int64) * self._items + candidates[None, :]
        place = np.minimum(np.searchsorted(self._history_keys, keys), len(self._history_keys) - 1)
        chosen = self._history_keys[place] == keys
        same: BoolArray = self.text_ids[batch.positive][:, None] == self.text_ids[candidates][None, :]
        hidden: BoolArray = chosen | same
        return hidden
