"""Stage two as a Lightning module: towers on cached text vectors, a next-item task at every position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, cast

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from conf.encoders import UserEncoderConfig
from encoders.device import CPU
from encoders.losses import sampled_softmax
from encoders.towers.drawn_events import DrawnEvents
from encoders.towers.sequences import (
    EventTensors,
    TrainingWindows,
    epoch_batches,
    epoch_windows,
    recent,
    shuffle_ties,
)
from encoders.towers.towers import Towers, best_rows
from encoders.training.fitting import running_average
from encoders.training.processes import gather_shards, joint_mean, rank_and_size, shard
from features.data.dataset import Events, FloatArray, IntArray, LongArray
from features.data.prefixes import item_counts
from features.data.splits import Queries, ragged_ranges

VALIDATION_K = 10
VALIDATION_QUERIES = 1024
VALIDATION_SCORES = 2**26
"""Limits of queries and of scores per block of validation (256 MB in float32)."""


class TowerBatches(IterableDataset[TrainingWindows]):
    """One epoch of training windows, fixed by its seed."""

    def __init__(
        self,
        events: Events,
        end: LongArray,
        config: UserEncoderConfig,
        seed: int,
        passes: int = 1,
        tensors: EventTensors | None = None,
        ties_unordered: bool = False,
        device: torch.device = CPU,
    ) -> None:
        """Store the epoch's inputs.

        Args:
            events: all events.
            end: position of each user's first event after training, [users].
            config: length and number of the windows.
            seed: of the epoch.
            passes: passes over the users.
            tensors: the events to read, on the device of the batches, if all windows are taken; None are
                those of `events` on the CPU. A sample of windows is copied from `events`.
            ties_unordered: reorder events of the same user and second in a sample.
            device: to which a sample is copied.
        """
        self.events, self.end, self.config, self.seed, self.passes = events, end, config, seed, passes
        self.tensors, self.ties_unordered, self.device = tensors, ties_unordered, device

    def _windows(self, rng: np.random.Generator) -> tuple[LongArray, LongArray]:
        config = self.config
        return epoch_windows(
            self.events, self.end, config.max_length, rng, self.passes, config.windows_per_epoch
        )

    def steps(self) -> int:
        """Return how many batches the epoch has."""
        return -(-len(self._windows(np.random.default_rng(self.seed))[0]) // self.config.batch_size)

    def __iter__(self) -> Iterator[TrainingWindows]:
        rng = np.random.default_rng(self.seed)
        windows = self._windows(rng)
        if self.config.windows_per_epoch:
            drawn = DrawnEvents.of(
                self.events, self.end, *windows, self.seed if self.ties_unordered else None
            )
            tensors, windows = drawn.tensors.to(self.device), (drawn.start, drawn.stop)
        else:
            tensors = EventTensors.of(self.events) if self.tensors is None else self.tensors
        batches = list(epoch_batches(*windows, self.config.batch_size, rng))
        if not batches:
            return
        # Positions go to the device once an epoch, not at every step.
        start, stop = (
            torch.from_numpy(np.concatenate(parts)).to(tensors.time.device)
            for parts in zip(*batches, strict=True)
        )
        first, (rank, ranks) = 0, rank_and_size()
        for begin, end in batches:
            sizes = (end - begin)[rank::ranks]
            here = slice(first + rank, first + len(begin), ranks)  # windows of this process
            if len(sizes):
                yield TrainingWindows.cut(
                    tensors, start[here], stop[here], int(sizes.max()), int(sizes.sum()) - len(sizes)
                )
            else:  # fewer windows than processes
                some = slice(first, first + 1)
                yield TrainingWindows.without_predictions(
                    tensors, start[some], stop[some], int(end[0] - begin[0])
                )
            first += len(begin)


@dataclass(frozen=True)
class TrainingData:
    """Inputs of every training step, on the training device."""

    events: EventTensors
    whitened: Tensor  # [items, text dim] whitened text vectors
    kind_weights: Tensor  # [kinds] weight of predicting an event of each kind
    trainable_rows: Tensor  # [trainable] items that training events mention
    cumulative: Tensor  # [trainable] cumulative probability of being drawn as a negative, float64
    log_q: Tensor  # [items] log probability of being drawn

    def to(self, device: torch.device, events: bool = True) -> TrainingData:
        """Move every tensor; the events only if asked to."""
        moved = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "events"}
        return TrainingData(self.events.to(device) if events else self.events, **moved)


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

        `passes` is the number of passes over the users per epoch.
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
        self.shared: torch.Generator | None = None
        """Generator of draws that must be equal in all processes; None where there is one."""
        steps = TowerBatches(events, end, config, seed, passes).steps()
        self.average = running_average(towers, config.average * steps)
        counts = item_counts(events, end, len(text_vectors)).astype(np.float64)
        share = np.where(counts > 0, np.maximum(counts, 1.0) ** config.negative_power, 0.0)
        share /= max(share.sum(), 1e-12)
        # No buffers: they would be part of the checkpoints, and be broadcast at every step.
        self.data = TrainingData(
            EventTensors.of(events),
            towers.item_tower.whitened_catalogue(text_vectors),
            torch.from_numpy(kind_weights),
            torch.from_numpy(np.flatnonzero(counts)),
            torch.from_numpy(np.cumsum(share[counts > 0])),
            torch.from_numpy(np.log(np.maximum(share, 1e-12)).astype(np.float32)),
        )

    def on_fit_start(self) -> None:
        """Move the inputs of the steps to the device: where windows are drawn, without the events."""
        whole = not self.settings.windows_per_epoch
        self._kept, self.data = self.data, self.data.to(self.device, events=whole)

    def on_fit_end(self) -> None:
        """Move them back."""
        self.data = self._kept

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """AdamW over both towers."""
        return torch.optim.AdamW(
            self.towers.parameters(),
            lr=self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )

    def train_dataloader(self) -> DataLoader[TrainingWindows]:
        """Return this epoch's batches; called anew each epoch so that a resumed run gets the same data."""
        seed = self.seed * 100_003 + self.current_epoch
        tensors, sampled = self.data.events, self.settings.windows_per_epoch > 0
        if self.ties_unordered and not sampled:
            shuffled = EventTensors.of(shuffle_ties(self.events, self.end, np.random.default_rng(seed)))
            tensors = replace(tensors, item=shuffled.item.to(self.device), kind=shuffled.kind.to(self.device))
        batches = TowerBatches(
            self.events, self.end, self.settings, seed, self.passes, tensors, self.ties_unordered, self.device
        )
        return DataLoader(batches, batch_size=None)

    def on_train_batch_start(self, batch: TrainingWindows, batch_idx: int) -> None:
        """Seed dropout and negatives by the epoch, so that resuming at an epoch repeats it exactly.

        Not in `on_train_epoch_start`: a data loader draws a seed after it, but before it in a resumed run.
        """
        if batch_idx == 0:
            seed, (rank, ranks) = self.seed * 100_003 + self.current_epoch, rank_and_size()
            torch.manual_seed(seed + 1_000_000_007 * rank)
            self.shared = None if ranks == 1 else torch.Generator(self.device).manual_seed(seed)

    def on_train_batch_end(self, outputs: object, batch: TrainingWindows, batch_idx: int) -> None:
        """Update the running average."""
        self.average.update_parameters(self.towers)

    @property
    def trained(self) -> Towers:
        """The averaged towers, which are validated and published."""
        return cast(Towers, self.average.module)

    def training_step(self, batch: TrainingWindows, _index: int) -> Tensor:
        """Predict every next item of the windows."""
        config, data, events = self.settings, self.data, batch.events
        device, length = events.rows.device, events.rows.shape[1]
        shown = torch.rand(len(data.log_q), device=device, generator=self.shared)
        keep_id = shown >= config.id_dropout
        negatives, sampled = data.trainable_rows, 0 < config.negatives < len(data.trainable_rows)
        if sampled:
            # Inverse transform sampling: much cheaper than torch.multinomial over a catalogue.
            lots = torch.rand(config.negatives, dtype=torch.float64, device=device, generator=self.shared)
            negatives = negatives[torch.searchsorted(data.cumulative, lots).clamp(max=len(negatives) - 1)]
        positives, drawn = self._item_vectors(events.rows.flatten(), negatives, keep_id)
        sequence = positives.view(len(events.rows), length, -1)
        states = self.towers.user_encoder(
            sequence[:, :-1], events.kinds[:, :-1], events.times[:, :-1], events.valid[:, :-1]
        )
        targets = events.rows[:, 1:].flatten()[batch.predicts]
        weights = data.kind_weights[events.kinds[:, 1:].flatten()[batch.predicts]]
        mean = sampled_softmax(
            states.flatten(0, 1)[batch.predicts],
            sequence[:, 1:].flatten(0, 1)[batch.predicts],
            drawn,
            targets[:, None] == negatives[None, :],
            weights,
            config.temperature,
            (data.log_q[targets], data.log_q[negatives]) if sampled else None,
        )
        loss = joint_mean(mean, weights)
        self.log("loss", loss, prog_bar=True, on_step=True, on_epoch=False, sync_dist=True)
        return loss

    def text_of(self, rows: Tensor) -> Tensor:
        """Return whitened text vectors of rows, [rows, text dim]."""
        return self.data.whitened[rows]

    def _item_vectors(self, rows: Tensor, negatives: Tensor, keep_id: Tensor) -> tuple[Tensor, Tensor]:
        """Return the item tower's vectors of rows and of negatives, [rows, dim] and [negatives, dim].

        Args:
            rows: catalogue rows, which may repeat, [rows].
            negatives: likewise, [negatives].
            keep_id: of all items, see `ItemTower.forward`, [items].

        """
        shown = torch.cat([rows, negatives])
        if shown.device.type != "cpu":
            # Synchronising to get the number of distinct rows would take longer than the tower.
            vectors = self.towers.item_tower(self.text_of(shown), shown, keep_id[shown])
            return vectors[: len(rows)], vectors[len(rows) :]
        # Each distinct row goes through the item tower once.
        distinct, inverse = torch.unique(shown, return_inverse=True)
        vectors = self.towers.item_tower(self.text_of(distinct), distinct, keep_id[distinct])
        return vectors[inverse[: len(rows)]], vectors[inverse[len(rows) :]]

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """Return one batch; `validation_step` does the work."""
        if self.valid is None:
            return []
        return DataLoader(torch.zeros(1), batch_size=None)  # type: ignore[arg-type]

    def validation_step(self, _batch: Tensor, _index: int) -> None:
        """Log the mean recall@10 over the validation queries."""
        assert self.valid is not None
        own = self.valid.select(shard(np.arange(len(self.valid))))
        recalls = _recalls(
            self.trained, self.data.whitened, self.events, own, self.exclude_seen, self.data.events
        )
        recall = gather_shards(recalls, len(self.valid)).cpu()  # synchronises once
        self.log("valid_recall", float(recall.numpy().mean()), prog_bar=True)


def _recalls(
    towers: Towers,
    whitened: Tensor,
    events: Events,
    queries: Queries,
    exclude_seen: bool,
    tensors: EventTensors | None = None,
) -> Tensor:
    """Return the validation recall of each query, [queries], in blocks of bounded size."""
    catalogue = towers.catalogue(whitened)
    size = max(min(VALIDATION_QUERIES, VALIDATION_SCORES // max(len(catalogue), 1)), 1)
    blocks = [
        queries.select(np.arange(begin, min(begin + size, len(queries))))
        for begin in range(0, len(queries), size)
    ]
    return torch.cat([
        tower_recall(towers, catalogue, events, block, exclude_seen, VALIDATION_K, tensors)
        for block in blocks
    ])  # fmt: skip


def validation_recall(
    towers: Towers, events: Events, valid: Queries, text_vectors: FloatArray, exclude_seen: bool
) -> float:
    """Return what `StageTwo` monitors, of towers on the CPU that it has not trained."""
    whitened = towers.item_tower.whitened_catalogue(text_vectors)
    return float(_recalls(towers, whitened, events, valid, exclude_seen).numpy().mean())


@torch.inference_mode()
def tower_recall(
    towers: Towers,
    catalogue: Tensor,
    events: Events,
    queries: Queries,
    exclude_seen: bool,
    k: int,
    tensors: EventTensors | None = None,
) -> Tensor:
    """Return recall@k per query of the user tower alone over the whole catalogue, [queries].

    Args:
        towers: both towers, on the device that computes.
        catalogue: vectors of all items, there, [items, dim].
        events: all events.
        queries: users, moments and what was chosen.
        exclude_seen: whether lists exclude the history.
        k: list length.
        tensors: the events, on the device or the CPU; None where both are the CPU.

    """
    seen = recent(events, queries.user, queries.end, towers.max_length, tensors).to(catalogue.device)
    users = towers.user_vectors(seen, catalogue)
    exclude = seen_pairs(events, queries) if exclude_seen else None
    return recall_of_lists(best_rows(users, catalogue, k, exclude), queries)


def seen_pairs(events: Events, queries: Queries) -> tuple[IntArray, IntArray]:
    """Return (query number, item row) of every event of the queries' histories, each [events]."""
    begin = events.offsets[queries.user]
    known = queries.end - begin
    query = np.repeat(np.arange(len(queries), dtype=np.int32), known)
    return query, events.item[ragged_ranges(begin, known)]


def recall_of_lists(top: Tensor, queries: Queries) -> Tensor:
    """Return the share of each query's targets that are in its list, [queries], of lists [queries, k]."""
    device = top.device
    sizes = np.diff(queries.target_offsets)
    owner = torch.from_numpy(np.repeat(np.arange(len(queries)), sizes)).to(device)
    targets = torch.from_numpy(queries.targets.astype(np.int64)).to(device)
    hit = (top[owner] == targets[:, None]).any(dim=1)  # [targets]
    hits = torch.zeros(len(queries), dtype=torch.float64, device=device).index_add_(0, owner, hit.double())
    return (hits / torch.from_numpy(np.maximum(sizes, 1)).to(device)).float()
