"""Stage one's training contexts: items of a history, and the item that the same user chose next."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from encoders.device import upload
from features.data.dataset import BoolArray, Events, FloatArray, IntArray, LongArray
from features.data.prefixes import PackedPositions, item_counts
from features.data.splits import ragged_ranges

MASKED = 10_000
"""Newest training events of a user whose items are no negatives; bounds the memory of a step."""
_NONE: IntArray = np.zeros(0, dtype=np.int32)


@dataclass(frozen=True)
class ContextBatch:
    """Contexts of one forward pass; -1 pads a short one."""

    user: IntArray  # [contexts]
    context: IntArray  # [contexts, window] catalogue rows, oldest first, padded on the left
    positive: IntArray  # [contexts] catalogue rows
    weight: FloatArray  # [contexts]
    chosen_by: IntArray = field(default_factory=_NONE.copy)  # [chosen] a user of the batch
    chosen: IntArray = field(default_factory=_NONE.copy)  # [chosen] an item that this user chose in training

    def rows(self) -> IntArray:
        """Return the distinct items of the batch."""
        both = np.concatenate([self.context.ravel(), self.positive])
        return np.unique(both[both >= 0]).astype(np.int32)

    def part(self, rank: int, ranks: int) -> ContextBatch:
        """Return the shard of the contexts that process `rank` of `ranks` predicts."""
        own = slice(rank, None, ranks)
        return replace(
            self, user=self.user[own], context=self.context[own], positive=self.positive[own],
            weight=self.weight[own],
        )  # fmt: skip

    def _chosen_candidates(self, users: IntArray, candidates: IntArray) -> IntArray:
        """Return user * candidates + candidate of what users chose, as indices, ascending, [pairs + 1].

        A last key that no pair has keeps the array from being empty.
        """
        places = np.searchsorted(candidates, self.chosen)
        places[places == len(candidates)] = 0
        known = candidates[places] == self.chosen
        owners = np.searchsorted(users, self.chosen_by[known])
        owners[owners == len(users)] = 0
        here = users[owners] == self.chosen_by[known]  # another process's contexts have users of their own
        keys = np.sort(owners[here] * len(candidates) + places[known][here])
        return np.append(keys, len(users) * len(candidates)).astype(np.int32)

    def indexed(self, candidates: IntArray, device: torch.device) -> IndexedContexts:
        """Return the contexts with items as indices into the candidates, in one copy to the device.

        Args:
            candidates: catalogue rows, ascending; every item of the batch is among them.
            device: where the loss is computed.

        """
        places = np.searchsorted(candidates, np.maximum(self.context, 0))
        places[self.context < 0] = len(candidates)
        users, user = np.unique(self.user, return_inverse=True)
        parts = (
            candidates,
            user,
            np.searchsorted(candidates, self.positive),
            places.ravel(),
            self.weight.astype(np.float32, copy=False).view(np.int32),
            self._chosen_candidates(users, candidates),
        )
        packed = upload(np.concatenate([part.astype(np.int32, copy=False) for part in parts]), device)
        rows, owner, positive, context, weight, chosen = torch.split(packed, [len(part) for part in parts])
        return IndexedContexts(
            rows.long(),
            owner.long(),
            context.long().view(self.context.shape),
            positive.long(),
            weight.view(torch.float32),
            chosen.long(),
        )


@dataclass(frozen=True)
class IndexedContexts:
    """Contexts as the loss reads them, on its device, with items as indices into the candidates."""

    candidates: Tensor  # [candidates] catalogue rows, ascending
    user: Tensor  # [contexts] index among the users of the contexts
    context: Tensor  # [contexts, window] indices; padded with the number of candidates
    positive: Tensor  # [contexts] indices
    weight: Tensor  # [contexts]
    chosen: Tensor  # [pairs] user * candidates + candidate of what users chose, ascending

    def members(self) -> Tensor:
        """Return 1.0 where a candidate is in a context, float [contexts, candidates]."""
        count = len(self.candidates)
        filled = torch.zeros(len(self.user), count + 1, device=self.candidates.device)
        return filled.scatter_(1, self.context, 1.0)[:, :count]


@dataclass(frozen=True)
class ContextTables:
    """Lookup tables of the loss about items, on its device."""

    text_ids: Tensor  # [items] equal for items whose texts are equal
    log_q: Tensor  # [items] log probability of being drawn

    def false_negatives(self, contexts: IndexedContexts) -> Tensor:
        """Return which candidates the user chose too, or have the positive's text, [contexts, candidates]."""
        count = len(contexts.candidates)
        keys = contexts.user[:, None] * count + torch.arange(count, device=contexts.user.device)
        place = torch.searchsorted(contexts.chosen, keys)
        texts = self.text_ids[contexts.candidates]
        return (contexts.chosen[place] == keys) | (texts[contexts.positive][:, None] == texts)


class ContextSampler:
    """Draws pieces of training histories; the same seed draws the same ones.

    A piece of n events yields up to n - 1 contexts that share their items. An item is encoded once per step
    however many contexts contain it, so a step of whole pieces learns several times as much from each text as
    a step of single pairs.
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
            text_ids: [items] equal for items whose texts are equal; these are no training pair.
            window: most events that make a context.
            piece: most events of one history in a batch.

        """
        self.events = events
        self.end = end
        self.kind_weights = kind_weights
        self.text_ids = text_ids
        self.window = window
        self.piece = piece
        self.positions = PackedPositions.of(events, end, self._can_be_predicted)
        counts = item_counts(events, end, len(text_ids)).astype(np.float64)
        self.log_q = np.log((counts + 1.0) / (counts.sum() + len(text_ids))).astype(np.float32)

    def __len__(self) -> int:
        return len(self.positions)

    def _can_be_predicted(self, later: LongArray) -> BoolArray:
        """Return at which positions an earlier event within the window has another text, [positions]."""
        found: BoolArray = np.asarray((self._contexts(later) >= 0).any(axis=1))
        return found

    def _contexts(self, later: LongArray) -> IntArray:
        """Return the items before each position with another text, [positions, window], padded with -1."""
        events = self.events
        earlier = later[:, None] - np.arange(self.window, 0, -1)
        inside = earlier >= events.offsets[events.user[later]][:, None]
        rows = events.item[np.maximum(earlier, 0)]
        different = self.text_ids[rows] != self.text_ids[events.item[later]][:, None]
        contexts: IntArray = np.where(inside & different, rows, -1).astype(np.int32)
        return contexts

    def batches(self, count: int, pieces: int, seed: int) -> Iterator[ContextBatch]:
        """Yield `count` batches of the contexts in `pieces` pieces of histories.

        A piece ends at a position drawn from all that can be positives, so longer histories are drawn more
        often.
        """
        rng = np.random.default_rng(seed)
        events = self.events
        for _ in range(count):
            last = self.positions.at(rng.integers(0, len(self.positions), size=pieces))
            first = np.maximum(events.offsets[events.user[last]], last - self.piece + 1)
            later = ragged_ranges(first + 1, last - first)
            start = np.repeat(first, last - first)
            contexts = self._contexts(later)
            # Events before the piece are not encoded in this step.
            contexts[later[:, None] - np.arange(self.window, 0, -1) < start[:, None]] = -1
            keep = (contexts >= 0).any(axis=1)
            if not keep.any():  # every drawn positive has the text of the events before it in its piece
                later, contexts = last, self._contexts(last)
                keep = np.ones(len(last), dtype=np.bool_)
            later, contexts = later[keep], contexts[keep]
            yield ContextBatch(
                events.user[later], contexts, events.item[later], self.kind_weights[events.kind[later]],
                *self.chosen(np.unique(events.user[later])),
            )  # fmt: skip

    def chosen(self, users: IntArray) -> tuple[IntArray, IntArray]:
        """Return users and what they chose, in at most the newest `MASKED` training events each, [events]."""
        begin = np.maximum(self.events.offsets[users], self.end[users] - MASKED)
        sizes = self.end[users] - begin
        return np.repeat(users, sizes), self.events.item[ragged_ranges(begin, sizes)]

    def tables(self, device: torch.device) -> ContextTables:
        """Return the loss's lookup tables on a device."""
        arrays = (self.text_ids.astype(np.int64), self.log_q)
        return ContextTables(*(torch.from_numpy(array).to(device) for array in arrays))
