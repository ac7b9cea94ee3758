"""Item-to-item baselines: co-occurrence and text neighbours."""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from encoders.device import CPU
from features.data.dataset import BoolArray, Events, FloatArray, IntArray, LongArray
from features.data.histories import HistoryBatch
from features.data.splits import Queries
from features.data.statistics import PAIRED_EVENTS, drawn_blocks
from ranking.baselines.lists import (
    DAY,
    has_times,
    popularity_floor,
    popularity_share,
    rank_catalogue,
    unit_rows,
    weighted_counts,
)
from ranking.kernels.dense_scores import DenseScores


def profile(
    histories: HistoryBatch, n_items: int, power: float, kind_weights: FloatArray | None
) -> sparse.csr_matrix:
    """Return histories as item weights by recency, (events since + 1) ** -power, [queries, items]."""
    weight = (histories.age() + 1.0) ** -power
    if kind_weights is not None:
        weight = weight * kind_weights[histories.kinds]
    return sparse.csr_matrix(
        (weight.astype(np.float32), (histories.owners(), histories.items)), shape=(len(histories), n_items)
    )


class ItemKnn:
    """Item-based nearest neighbours by co-occurrence (Deshpande and Karypis 2004, made sequential).

    Two events at most `window` apart in a history are a pair of weight distance ** -0.5; the later item is
    proposed with full weight, the earlier one with `backward`. Pair sums are divided by damped item counts. A
    list is the sum over the history, with newer items weighted higher. Where history may be repeated, the
    user's own decayed counts come first and neighbours add at most `neighbour_share`: on grocery data that
    beats either alone.
    """

    name = "item_knn"

    def __init__(
        self,
        window: int = 10,
        backward: float = 0.3,
        from_power: float = 0.5,
        to_power: float = 0.3,
        shrink: float = 10.0,
        recency_power: float = 0.8,
        max_history: int = 200,
        half_life_days: float = 120.0,
        neighbour_share: float = 1.5,
        kind_weights: FloatArray | None = None,
    ) -> None:
        """Take the parameters.

        Args:
            window: largest distance of a pair, in events.
            backward: weight of proposing the earlier item of a pair.
            from_power: exponent of the count of the history's item in the normalisation.
            to_power: exponent of the count of the proposed item; 0.5 twice would be the cosine.
            shrink: added to counts, so that pairs seen once do not rank first.
            recency_power: see `profile`.
            max_history: newest events of a history that are used.
            half_life_days: of own items, where history may be repeated.
            neighbour_share: weight of the best neighbour in events of today, where history may be repeated.
            kind_weights: [kinds] weight of each event kind.

        """
        self.window = window
        self.backward = backward
        self.from_power = from_power
        self.to_power = to_power
        self.shrink = shrink
        self.recency_power = recency_power
        self.max_history = max_history
        self.half_life_days = half_life_days
        self.neighbour_share = neighbour_share
        self.kind_weights = kind_weights

    def fit(self, events: Events, end: LongArray, now: int, n_items: int) -> None:
        """Add up the pairs of the prefix in a sparse [items, items] matrix.

        Of more than `PAIRED_EVENTS`, those of drawn users count.
        """
        counts = weighted_counts(events, end, n_items, self.kind_weights)
        self.share = popularity_share(counts)
        self.has_time = has_times(events, end)
        kind_scale = None if self.kind_weights is None else np.sqrt(self.kind_weights)
        shape = (n_items, n_items)
        follows = sparse.csr_matrix(shape, dtype=np.float32)
        for positions in drawn_blocks(events, end, PAIRED_EVENTS):
            stop = end[events.user[positions]]
            for distance in range(1, self.window + 1):
                earlier = positions[positions + distance < stop]
                first, second = events.item[earlier], events.item[earlier + distance]
                differ = first != second
                value = np.full(len(earlier), distance**-0.5, dtype=np.float32)
                if kind_scale is not None:
                    value = value * kind_scale[events.kind[earlier]]
                    value = value * kind_scale[events.kind[earlier + distance]]
                follows = follows + sparse.csr_matrix(
                    (value[differ], (first[differ], second[differ])), shape=shape, dtype=np.float32
                )
        damped = np.maximum(counts + self.shrink, 1e-9)
        left, right = ((damped**-power).astype(np.float32) for power in (self.from_power, self.to_power))
        pairs = sparse.csr_matrix(follows + np.float32(self.backward) * follows.T, dtype=np.float32)
        del follows
        # In place: of ten million events the matrix takes half a gigabyte, and each product as much again.
        pairs.data *= np.repeat(left, np.diff(pairs.indptr))
        pairs.data *= right[pairs.indices]
        self.similar = pairs

    def recommend(
        self,
        events: Events,
        queries: Queries,
        k: int,
        exclude_seen: bool,
        allowed: BoolArray | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Rank by the sum over the history; items without a pair with it follow by popularity."""
        n_items = len(self.share)

        def score(histories: HistoryBatch) -> FloatArray:
            newest = histories.newest(self.max_history)
            near = profile(newest, n_items, self.recency_power, self.kind_weights) @ self.similar
            scores: FloatArray = near.toarray()
            if not exclude_seen:
                best = np.maximum(scores.max(axis=1, initial=0.0, keepdims=True), 1e-12)
                scores *= np.float32(self.neighbour_share) / best
                scores += self._own(histories, n_items).toarray()
            return popularity_floor(scores, self.share, scores > 0)

        return rank_catalogue(events, queries, n_items, k, exclude_seen, score, allowed)

    def _own(self, histories: HistoryBatch, n_items: int) -> sparse.csr_matrix:
        """Return the decayed counts of each history's items, [queries, items]."""
        owner = histories.owners()
        weight = np.ones(len(owner), dtype=np.float32)
        if self.has_time:
            age = np.maximum(histories.now[owner] - histories.times, 0) / DAY
            weight = (0.5 ** (age / self.half_life_days)).astype(np.float32)
        return sparse.csr_matrix((weight, (owner, histories.items)), shape=(len(histories), n_items))

    def describe(self) -> str:
        """Describe the method."""
        return (
            f"co-occurrence within {self.window} events, counts damped by powers {self.from_power:g} and "
            f"{self.to_power:g}, newest {self.max_history} events of the history"
        )


class FrozenText:
    """Items whose text is nearest to the user's recent items, by an encoder without fine-tuning."""

    name = "frozen_text"

    def __init__(
        self,
        vectors: FloatArray,
        max_history: int = 20,
        recency_power: float = 2.0,
        kind_weights: FloatArray | None = None,
        device: torch.device = CPU,
    ) -> None:
        """Take text vectors [items, dim] of any length, zero where there is no text, and a device."""
        self.device = device
        self.vectors = unit_rows(vectors)
        self.max_history = max_history
        self.recency_power = recency_power
        self.kind_weights = kind_weights

    def fit(self, events: Events, end: LongArray, now: int, n_items: int) -> None:
        """Count popularity for users without history; nothing else is learned.

        Raises:
            ValueError: when there are not as many vectors as items.

        """
        if len(self.vectors) != n_items:
            raise ValueError(f"{len(self.vectors)} text vectors for {n_items} items")
        self.share = popularity_share(weighted_counts(events, end, n_items, self.kind_weights))
        if self.device.type != "cpu":
            everything = np.ones(n_items, dtype=np.bool_)
            self._there = DenseScores(self.vectors, self.share, everything, self.device)

    def recommend(
        self,
        events: Events,
        queries: Queries,
        k: int,
        exclude_seen: bool,
        allowed: BoolArray | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Rank by cosine to the weighted mean of the newest items; users without history get popularity."""
        n_items = len(self.share)

        def score(histories: HistoryBatch) -> FloatArray | Tensor:
            newest = histories.newest(self.max_history)
            mean = profile(newest, n_items, self.recency_power, self.kind_weights) @ self.vectors
            norm = np.linalg.norm(mean, axis=1, keepdims=True)  # [queries, 1]
            unit = (mean / np.maximum(norm, 1e-12)).astype(np.float32)
            if self.device.type != "cpu":
                return self._there.of(unit, norm[:, 0] > 0)
            cosine = unit @ self.vectors.T
            covered = np.broadcast_to(norm > 0, cosine.shape)
            return popularity_floor(cosine, self.share, covered)

        return rank_catalogue(events, queries, n_items, k, exclude_seen, score, allowed)

    def describe(self) -> str:
        """Describe the method."""
        return f"cosine to the mean text vector of the newest {self.max_history} events, encoder untrained"
