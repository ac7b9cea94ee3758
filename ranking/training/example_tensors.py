"""Ranking examples as tensors, and their batches on the training device."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset

from encoders.device import fits
from encoders.training.processes import rank_and_size
from ranking.training.examples import Examples


@dataclass(frozen=True)
class ExampleTensors:
    """Examples of queries, as read by a training step."""

    features: Tensor  # [queries, candidates, features]
    real: Tensor  # bool [queries, candidates], False at padding
    chosen: Tensor  # bool [queries, candidates]
    bought: Tensor  # bool [queries, candidates]
    shift: Tensor  # [queries] log of the sampled share of negatives

    @classmethod
    def of(cls, examples: Examples) -> ExampleTensors:
        """Return examples as CPU tensors, sharing memory where torch allows it."""
        shift = np.log(np.maximum(examples.negative_share, 1e-6))
        arrays = (examples.features, examples.real, examples.chosen, examples.bought, shift)
        return cls(*(torch.from_numpy(np.require(array, requirements="W")) for array in arrays))

    def __len__(self) -> int:
        return len(self.shift)

    def _tensors(self) -> list[Tensor]:
        return [getattr(self, field.name) for field in fields(self)]

    def select(self, rows: Tensor) -> ExampleTensors:
        """Return the queries at `rows`, on the same device as the examples."""
        return ExampleTensors(*(tensor[rows] for tensor in self._tensors()))

    def to(self, device: torch.device) -> ExampleTensors:
        """Return the tensors on a device; from page-locked memory asynchronously."""
        return ExampleTensors(*(tensor.to(device, non_blocking=True) for tensor in self._tensors()))

    def pinned(self) -> ExampleTensors:
        """Return a copy in page-locked memory."""
        return ExampleTensors(*(tensor.pin_memory() for tensor in self._tensors()))

    def on_device_if_fits(self, device: torch.device) -> ExampleTensors:
        """Return them on a device, or unchanged if they would take too much of its memory."""
        size = sum(tensor.nbytes for tensor in self._tensors())
        return self.to(device) if fits(size, device) else self


class QueryBatches(IterableDataset[ExampleTensors]):
    """One epoch of examples in a seeded order, in batches on a device, each divided among the processes."""

    def __init__(self, examples: ExampleTensors, batch_size: int, seed: int, device: torch.device) -> None:
        """Take the epoch's examples; from another device they are copied batch by batch."""
        self.examples, self.batch_size, self.seed, self.device = examples, batch_size, seed, device

    def __iter__(self) -> Iterator[ExampleTensors]:
        order = np.random.default_rng(self.seed).permutation(len(self.examples))
        position = self.examples.features.device
        rows = torch.from_numpy(order).to(position)
        rank, ranks = rank_and_size()
        for start in range(0, len(rows), self.batch_size):
            batch = self.examples.select(rows[start : start + self.batch_size][rank::ranks])
            yield batch if position == self.device else batch.pinned().to(self.device)
