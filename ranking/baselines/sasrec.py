"""SASRec: this project's towers with item ids only, without text."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from encoders.device import CPU
from encoders.towers.sequences import EventTensors, recent
from encoders.towers.towers import Towers
from features.data.dataset import BoolArray, Events, FloatArray, IntArray, LongArray
from features.data.histories import histories_of
from features.data.splits import Queries, ragged_ranges
from ranking.baselines.lists import (
    blocks_of,
    empty_lists,
    popularity_floor,
    popularity_share,
    top_k,
    weighted_counts,
)
from ranking.kernels.dense_scores import DenseScores, best_of


class SasrecIds:
    """A causal transformer over item embeddings (Kang and McAuley 2018), trained like the user tower.

    Trained on the events before validation, with early stopping on validation recall; test queries use the
    same weights, or refitted ones if the system's are refitted. Their histories reach up to test.
    """

    name = "sasrec_ids"

    def __init__(
        self,
        train: Callable[[LongArray], Towers],
        kind_weights: FloatArray | None = None,
        device: torch.device = CPU,
    ) -> None:
        """Take the training function, the weight of each kind, and the device of scoring."""
        self.device = device
        self._train = train
        self._towers: Towers | None = None
        self.kind_weights = kind_weights

    def fit(self, events: Events, end: LongArray, now: int, n_items: int) -> None:
        """Train the towers on these events and count popularity."""
        self.share = popularity_share(weighted_counts(events, end, n_items, self.kind_weights))
        self._towers = self._train(end).to(self.device)
        # The text vectors of towers without text are never read.
        width = self._towers.item_tower.mean.shape[0]
        self.vectors = self._towers.item_vectors(np.zeros((n_items, width), dtype=np.float32))
        self.learned: BoolArray = self._towers.item_tower.seen.cpu().numpy()
        if self.device.type != "cpu":
            self._there = DenseScores(self.vectors, self.share, self.learned, self.device)

    @torch.inference_mode()
    def recommend(
        self,
        events: Events,
        queries: Queries,
        k: int,
        exclude_seen: bool,
        allowed: BoolArray | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Rank by inner product with the user vector; items never trained on follow by popularity."""
        assert self._towers is not None, "fit comes first"
        there = self.device.type != "cpu"
        vectors = self._there.vectors if there else torch.from_numpy(self.vectors)
        tensors = EventTensors.of(events).to(self.device)
        items, scores = empty_lists(len(queries), k)
        for span, part in blocks_of(queries, len(self.vectors)):
            batch = recent(events, part.user, part.end, self._towers.max_length, tensors)
            users = self._towers.user_vectors(batch, vectors)
            begin = events.offsets[part.user]
            sizes = part.end - begin
            if there:
                block_on_device = self._there.of(users, sizes > 0)
                histories = histories_of(events, part)
                items[span], scores[span] = best_of(block_on_device, histories, k, exclude_seen, allowed)
                continue
            covered = self.learned[None, :] & (sizes > 0)[:, None]
            block = popularity_floor((users @ vectors.T).numpy(), self.share, covered)
            if exclude_seen:
                owner = np.repeat(np.arange(len(part)), sizes)
                block[owner, events.item[ragged_ranges(begin, sizes)]] = -np.inf
            if allowed is not None:
                block[:, ~allowed] = -np.inf
            items[span], scores[span] = top_k(block, k)
        return items, scores

    def describe(self) -> str:
        """Describe the method."""
        return "the user tower on learned item embeddings without text, stopped by validation recall"
