"""Stage two as a Lightning module: towers on cached text vectors, a next-item task at every position."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from conf.encoders import UserEncoderConfig
from encoders.fitting import running_average
from encoders.losses import sampled_softmax
from encoders.sequences import (
    SequenceBatch,
    epoch_batches,
    epoch_windows,
    gather,
    recent,
    shuffle_ties,
)
from encoders.towers import Towers, best_items
from features.dataset import Events, FloatArray, LongArray
from features.splits import Queries, ragged_ranges

VALIDATION_K = 10


class TowerBatches(IterableDataset[SequenceBatch]):
    """One epoch of training windows, fixed by its seed."""

    def __init__(
        self, events: Events, end: LongArray, config: UserEncoderConfig, seed: int, passes: int = 1
    ) -> None:
        """Keep what the epoch is made from."""
        self.events, self.end, self.config, self.seed, self.passes = events, end, config, seed, passes

    def _windows(self, rng: np.random.Generator) -> tuple[LongArray, LongArray]:
        config = self.config
        return epoch_windows(
            self.events, self.end, config.max_length, rng, self.passes, config.windows_per_epoch
        )

    def steps(self) -> int:
        """Return how many batches the epoch has."""
        return -(-len(self._windows(np.random.default_rng(self.seed))[0]) // self.config.batch_size)

    def __iter__(self) -> Iterator[SequenceBatch]:
        rng = np.random.default_rng(self.seed)
        for start, stop in epoch_batches(*self._windows(rng), self.config.batch_size, rng):
            yield gather(self.events, start, stop)


class StageTwo(pl.LightningModule):
    """Trains the towers; validates by recall@10 over the whole catalogue."""

    def __init__(
        self,
        towers: Towers,
        config: UserEncoderConfig,
        events: Events,
        end: LongArray,
        text_vectors: FloatArray,
        kind_weights: FloatArray,
        valid: Queries | None,
        exclude_seen: bool,
        seed: int,
        ties_unordered: bool = False,
        passes: int = 1,
    ) -> None:
        """Take fitted towers, training prefixes (`end` per user) and validation queries or None.

        `passes` is how often an epoch goes through the users.
        """
        super().__init__()
        self.towers = towers
        self.settings = config
        self.events = events
        self.end = end
        self.valid = valid
        self.exclude_seen = exclude_seen
        self.seed = seed
        self.ties_unordered = ties_unordered
        self.passes = passes
        steps = TowerBatches(events, end, config, seed, passes).steps()
        self.average = running_average(towers, config.average * steps)
        self.text_vectors = text_vectors
        self.whitened = towers.item_tower.whitened(torch.from_numpy(text_vectors))
        self.kind_weights = torch.from_numpy(kind_weights)
        trained = events.item[ragged_ranges(events.offsets[:-1], end - events.offsets[:-1])]
        counts = np.bincount(trained, minlength=len(text_vectors)).astype(np.float64)
        self.trainable_rows = torch.from_numpy(np.flatnonzero(counts))
        share = np.where(counts > 0, np.maximum(counts, 1.0) ** config.negative_power, 0.0)
        share /= max(share.sum(), 1e-12)
        self.cumulative = torch.from_numpy(np.cumsum(share[counts > 0]))
        self.log_q = torch.from_numpy(np.log(np.maximum(share, 1e-12)).astype(np.float32))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over both towers."""
        return torch.optim.AdamW(
            self.towers.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )

    def train_dataloader(self) -> DataLoader[SequenceBatch]:
        """Return this epoch's batches; called anew each epoch so that a resumed run sees the same data."""
        seed = self.seed * 100_003 + self.current_epoch
        events = self.events
        if self.ties_unordered:
            events = shuffle_ties(events, self.end, np.random.default_rng(seed))
        batches = TowerBatches(events, self.end, self.settings, seed, self.passes)
        return DataLoader(batches, batch_size=None)

    def on_train_batch_start(self, batch: SequenceBatch, batch_idx: int) -> None:
        """Tie dropout and negatives to the epoch, so that resuming at an epoch repeats it exactly.

        Not at the epoch's start: a data loader draws a seed after it, but before it in a resumed run.
        """
        if batch_idx == 0:
            torch.manual_seed(self.seed * 100_003 + self.current_epoch)

    def on_train_batch_end(self, outputs: object, batch: SequenceBatch, batch_idx: int) -> None:
        """Let the average follow."""
        self.average.update_parameters(self.towers)

    @property
    def trained(self) -> Towers:
        """The averaged towers: what validation measures and what is kept."""
        return cast(Towers, self.average.module)

    def training_step(self, batch: SequenceBatch, _index: int) -> Tensor:
        """Predict every next item of the windows."""
        config, device = self.settings, self.device
        length = batch.rows.shape[1]
        keep_id = torch.rand(len(self.whitened)) >= config.id_dropout
        negatives, sampled = self.trainable_rows, 0 < config.negatives < len(self.trainable_rows)
        if sampled:
            # Inverse transform sampling: much cheaper than torch.multinomial over a catalogue.
            places = torch.searchsorted(self.cumulative, torch.rand(config.negatives, dtype=torch.float64))
            negatives = negatives[places.clamp(max=len(negatives) - 1)]
        # Each distinct row goes through the item tower once.
        rows, inverse = torch.unique(torch.cat([batch.rows.flatten(), negatives]), return_inverse=True)
        vectors = self.towers.item_tower(
            self.whitened[rows].to(device), rows.to(device), keep_id[rows].to(device)
        )
        sequence = vectors[inverse[: batch.rows.numel()].to(device)].view(len(batch.rows), length, -1)
        negative_vectors = vectors[inverse[batch.rows.numel() :].to(device)]
        inputs = SequenceBatch(
            batch.rows[:, :-1], batch.kinds[:, :-1], batch.times[:, :-1], batch.valid[:, :-1]
        ).to(device)
        states = self.towers.user_encoder(sequence[:, :-1], inputs.kinds, inputs.times, inputs.valid)
        predicts = inputs.valid
        targets = batch.rows[:, 1:][batch.valid[:, :-1]]
        loss = sampled_softmax(
            states[predicts],
            sequence[:, 1:][predicts],
            negative_vectors,
            (targets[:, None] == negatives[None, :]).to(device),
            self.kind_weights[batch.kinds[:, 1:]].to(device)[predicts],
            config.temperature,
            (self.log_q[targets].to(device), self.log_q[negatives].to(device)) if sampled else None,
        )
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=False)
        return loss

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return index blocks of the validation queries."""
        if self.valid is None:
            return []
        rows = np.arange(len(self.valid))
        blocks = [torch.from_numpy(rows[i : i + 1024]) for i in range(0, len(rows), 1024)]
        return DataLoader(blocks, batch_size=None)  # type: ignore[arg-type]

    def on_validation_epoch_start(self) -> None:
        """Compute the catalogue's vectors once per validation."""
        self.catalogue = torch.from_numpy(self.trained.item_vectors(self.text_vectors))
        self.recalls: list[FloatArray] = []

    def validation_step(self, index: Tensor, _index: int) -> None:
        """Collect recall@10 of a block of queries."""
        assert self.valid is not None
        queries = self.valid.select(index.cpu().numpy())
        self.recalls.append(
            tower_recall(self.trained, self.catalogue, self.events, queries, self.exclude_seen, VALIDATION_K)
        )

    def on_validation_epoch_end(self) -> None:
        """Log the mean over queries."""
        self.log("valid_recall", float(np.concatenate(self.recalls).mean()), prog_bar=True)


@torch.inference_mode()
def tower_recall(
    towers: Towers, catalogue: Tensor, events: Events, queries: Queries, exclude_seen: bool, k: int
) -> FloatArray:
    """Return recall@k per query of the user tower alone over the whole catalogue, [queries]."""
    device = next(towers.parameters()).device
    batch = recent(events, queries.user, queries.end, towers.max_length).to(device)
    users = towers.user_vectors(batch, catalogue.to(device)).cpu()
    exclude = None
    if exclude_seen:
        begin = events.offsets[queries.user]
        sizes = queries.end - begin
        owner = np.repeat(np.arange(len(queries), dtype=np.int32), sizes)
        exclude = (owner, events.item[ragged_ranges(begin, sizes)])
    top = best_items(users, catalogue, k, exclude)
    sizes = np.diff(queries.target_offsets)
    owner = np.repeat(np.arange(len(queries)), sizes)
    hit = (top[owner] == queries.targets[:, None]).any(axis=1)
    hits = np.bincount(owner, weights=hit, minlength=len(queries))
    recall: FloatArray = (hits / np.maximum(sizes, 1)).astype(np.float32)
    return recall
