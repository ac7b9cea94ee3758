"""Affinity: a linear map of text vectors under which items bought together are near, learnt from histories.

Text vectors measure similarity; items bought together often have quite different texts. A matrix on top of
the finished vectors learns the difference in seconds, and because text is its only input, it maps items
without any event as well as any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from torch import nn

from conf.encoders import TextEncoderConfig
from encoders.contexts import ContextSampler, ContextTables, IndexedContexts
from encoders.losses import in_batch_softmax
from encoders.towers.item_tower import whitening
from features.data.arrays import map_rows
from features.data.dataset import BoolArray, FloatArray
from features.data.statistics import Neighbours

AFFINITY_FILE = "affinity.safetensors"
PIECES = 256
"""Pieces of histories per step."""
LEARNING_RATE = 1e-3
WARMUP = 20
BLOCK = 1 << 24
"""Cosines computed at a time by `imputation_neighbours`; bounds their memory."""


@dataclass(frozen=True)
class Affinity:
    """A linear map from text vectors to a space in which items chosen together are near each other."""

    matrix: FloatArray  # [text dim, text dim]
    shift: FloatArray  # [text dim]

    def units(self, text_vectors: FloatArray, room: int = 0) -> FloatArray:
        """Map text vectors, [items, text dim] to unit vectors of the same shape, with room for more rows."""
        return map_rows(self._units, text_vectors, self.matrix.shape[1], room)

    def _units(self, text_vectors: FloatArray) -> FloatArray:
        mapped = text_vectors @ self.matrix + self.shift
        lengths = np.linalg.norm(mapped, axis=1, keepdims=True)
        scaled: FloatArray = (mapped / np.maximum(lengths, 1e-9)).astype(np.float32)
        return scaled

    @classmethod
    def fit(
        cls,
        text_vectors: FloatArray,
        sampler: ContextSampler,
        config: TextEncoderConfig,
        seed: int,
        device: torch.device,
    ) -> Affinity | None:
        """Learn from the histories that the text encoder is trained on; None where there are none.

        The map starts as the whitening of the catalogue, and its loss is the one that fine-tunes the encoder.

        Args:
            text_vectors: unit text vectors, [items, text dim].
            sampler: contexts of training histories.
            config: steps, temperature and corrections of the loss.
            seed: fixes the contexts.
            device: where it is computed; the vectors are copied there once.

        """
        if len(sampler) == 0 or config.affinity_steps == 0:
            return None
        mean, matrix = whitening(text_vectors)
        weight = nn.Parameter(torch.from_numpy(matrix.copy()).to(device))
        bias = nn.Parameter(torch.from_numpy(-mean @ matrix).to(device))
        optimizer = torch.optim.AdamW([weight, bias], lr=LEARNING_RATE, weight_decay=0.0, fused=True)
        steps = config.affinity_steps

        def factor(step: int) -> float:
            return min(1.0, (step + 1) / WARMUP) * (steps - step) / steps

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        texts, tables = torch.from_numpy(text_vectors).to(device), sampler.tables(device)
        for batch in sampler.batches(steps, PIECES, seed):
            contexts = batch.indexed(batch.rows(), device)
            vectors = nn.functional.normalize(texts[contexts.candidates] @ weight + bias, dim=-1)
            context_loss(vectors, contexts, tables, config).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
        return cls(weight.detach().cpu().numpy(), bias.detach().cpu().numpy())

    def save(self, path: Path) -> None:
        """Write both arrays."""
        save_file({"matrix": self.matrix, "shift": self.shift}, path)

    @classmethod
    def load(cls, path: Path) -> Affinity | None:
        """Read what `save` wrote; None where there is no file."""
        return cls(**load_file(path)) if path.is_file() else None


def context_loss(
    vectors: torch.Tensor,
    contexts: IndexedContexts,
    tables: ContextTables,
    config: TextEncoderConfig,
) -> torch.Tensor:
    """Return the loss of predicting each positive from its context among the items of a step.

    Args:
        vectors: unit vectors of the candidates, [candidates, dim].
        contexts: the contexts and their positives.
        tables: sampling probabilities and false negatives.
        config: temperature, and which corrections to make.

    """
    member = contexts.members()
    masked = member > 0  # a context's own items are no negatives
    if config.mask_false_negatives:
        masked = masked | tables.false_negatives(contexts)
    return in_batch_softmax(
        nn.functional.normalize(member @ vectors, dim=-1),
        vectors,
        contexts.positive,
        temperature=config.temperature,
        log_q=tables.log_q[contexts.candidates] if config.logq else None,
        masked=masked,
        weights=contexts.weight,
    )


def imputation_neighbours(vectors: FloatArray, units: FloatArray, known: BoolArray, k: int) -> Neighbours:
    """Return the nearest items with events for items without, whose factors are imputed from them.

    Args:
        vectors: affinity vectors of the items without events, [rows, dim].
        units: affinity vectors of the whole catalogue, [items, dim].
        known: [items] items with events.
        k: neighbours per item.

    Returns:
        Neighbours, [rows, k], padded with -1.

    """
    pool = np.flatnonzero(known).astype(np.int32)
    ids = np.full((len(vectors), k), -1, dtype=np.int32)
    weights = np.zeros((len(vectors), k), dtype=np.float32)
    if len(pool) == 0:
        return Neighbours(ids, weights)
    width = min(k, len(pool))
    # Copying most of a catalogue for one changed item costs more than searching all of it.
    whole = 2 * len(pool) > len(units)
    pool = np.arange(len(units), dtype=np.int32) if whole else pool
    pooled = units if whole else units[pool]
    step = max(BLOCK // len(pool), 1)
    for start in range(0, len(vectors), step):
        block = slice(start, start + step)
        cosines = vectors[block] @ pooled.T
        if whole:
            cosines[:, ~known] = -np.inf
        best = np.argpartition(-cosines, width - 1, axis=1)[:, :width]
        values = np.take_along_axis(cosines, best, axis=1)
        order = np.lexsort((best, -values), axis=1)
        ids[block, :width] = pool[np.take_along_axis(best, order, axis=1)]
        weights[block, :width] = np.maximum(np.take_along_axis(values, order, axis=1), 0.0)
    return Neighbours(ids, weights)
