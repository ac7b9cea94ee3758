"""Both towers together, as stage two trains them, the bundle stores them and the Recommender calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from conf.encoders import UserEncoderConfig
from encoders.towers.compiled_user_tower import CompiledUserTower
from encoders.towers.item_tower import ItemTower
from encoders.towers.sequences import SequenceBatch, windows
from encoders.towers.user_tower import UserEncoder
from features.data.dataset import FloatArray, IntArray
from features.data.histories import HistoryBatch

TOWERS_FILE = "user_encoder.safetensors"
TOWERS_CONFIG = "user_encoder.json"
MANY = 64
"""Least number of histories that a GPU encodes where the tower has one layer. For fewer, the compiled loop on
the CPU (.015 ms a history) is faster than launching some forty kernels (about .01 ms each)."""


class Towers(nn.Module):
    """Item tower and user tower in one vector space; their dot product is the retrieval score."""

    def __init__(
        self,
        text_dim: int,
        items: int,
        kinds: int,
        *,
        dim: int,
        layers: int,
        heads: int,
        max_length: int,
        dropout: float = 0.0,
        hybrid: bool = True,
        text: bool = True,
    ) -> None:
        """Build both towers."""
        super().__init__()
        self._compiled: CompiledUserTower | None = None
        self.shape: dict[str, Any] = {
            "text_dim": text_dim,
            "items": items,
            "kinds": kinds,
            "dim": dim,
            "layers": layers,
            "heads": heads,
            "max_length": max_length,
            "hybrid": hybrid,
            "text": text,
        }
        self.max_length = max_length
        self.dim = dim
        self.item_tower = ItemTower(text_dim, items, dim, hybrid, text)
        self.user_encoder = UserEncoder(dim, layers, heads, max_length, kinds, dropout)

    @classmethod
    def from_config(cls, config: UserEncoderConfig, text_dim: int, items: int, kinds: int) -> Towers:
        """Build untrained towers for a catalogue."""
        return cls(
            text_dim,
            items,
            kinds,
            dim=config.dim,
            layers=config.layers,
            heads=config.heads,
            max_length=config.max_length,
            dropout=config.dropout,
            hybrid=config.hybrid,
            text=config.text,
        )

    @torch.inference_mode()
    def item_vectors(self, text_vectors: FloatArray, block: int = 65536) -> FloatArray:
        """Return vectors of the whole catalogue, float32 [items, dim]."""
        device = next(self.parameters()).device
        vectors = np.empty((len(text_vectors), self.dim), dtype=np.float32)
        for start in range(0, len(text_vectors), block):
            text = torch.from_numpy(text_vectors[start : start + block]).to(device)
            rows = torch.arange(start, start + len(text), device=device)
            vectors[start : start + block] = (
                self.item_tower(self.item_tower.whitened(text), rows).cpu().numpy()
            )
        return vectors

    @torch.inference_mode()
    def catalogue(self, whitened: Tensor, block: int = 65536) -> Tensor:
        """Return `item_vectors` computed from whitened text vectors [items, text dim], on their device."""
        rows = torch.arange(len(whitened), device=whitened.device)
        vectors = torch.empty(len(whitened), self.dim, device=whitened.device)
        for start in range(0, len(whitened), block):
            part = slice(start, start + block)
            vectors[part] = self.item_tower(whitened[part], rows[part])
        return vectors

    def user_vectors(self, batch: SequenceBatch, item_vectors: Tensor) -> Tensor:
        """Return the vector after each history's newest event, [batch, dim], given all item vectors."""
        return self.user_encoder.newest(item_vectors[batch.rows], batch.kinds, batch.times, batch.valid)

    @torch.inference_mode()
    def encode(self, batch: HistoryBatch, item_vectors: FloatArray) -> FloatArray:
        """Return `user_vectors` of histories, [histories, dim]; zero where a history is empty.

        A tower of one layer runs as a compiled loop on the CPU, with the weights of the first call after
        `eval`; with a GPU for fewer than `MANY` histories. Only vectors of items in the histories are copied
        to a GPU.
        """
        device = self.item_tower.seen.device
        if len(self.user_encoder.blocks) == 1 and (device.type == "cpu" or len(batch) < MANY):
            if self._compiled is None:
                self._compiled = CompiledUserTower.of(self.user_encoder)
            return self._compiled.newest(batch, item_vectors)
        # The width is the tower's own, not the batch's longest: results do not depend on the rest of the
        # batch.
        seen = windows(batch, self.max_length)
        items = torch.from_numpy(item_vectors)[seen.rows].to(device)  # [histories, length, dim]
        seen = seen.to(device)
        states = self.user_encoder.newest(items, seen.kinds, seen.times, seen.valid)
        vectors: FloatArray = states.cpu().numpy()
        vectors[np.diff(batch.offsets) == 0] = 0.0
        return vectors

    def train(self, mode: bool = True) -> Towers:
        """Change between training and serving; the compiled tower is dropped."""
        self._compiled = None
        return super().train(mode)

    def save(self, folder: Path) -> None:
        """Write weights and shape."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({name: t.cpu().contiguous() for name, t in self.state_dict().items()}, folder / TOWERS_FILE)
        (folder / TOWERS_CONFIG).write_text(json.dumps(self.shape, indent=2) + "\n")

    @classmethod
    def load(cls, folder: Path) -> Towers:
        """Read towers written by `save`, ready to score."""
        towers = cls(**json.loads((folder / TOWERS_CONFIG).read_text()))
        towers.load_state_dict(load_file(folder / TOWERS_FILE))
        return towers.eval()


def best_items(
    users: Tensor, items: Tensor, k: int, exclude: tuple[IntArray, IntArray] | None = None
) -> IntArray:
    """Return `best_rows` as a NumPy array."""
    return best_rows(users, items, k, exclude).cpu().numpy().astype(np.int32)


def best_rows(
    users: Tensor, items: Tensor, k: int, exclude: tuple[IntArray, IntArray] | None = None
) -> Tensor:
    """Return the rows of the k largest dot products, [users, k]; -1 where fewer are allowed.

    Computed on the device of the vectors, where the result stays.

    Args:
        users: [users, dim].
        items: the whole catalogue, [items, dim], on the same device.
        k: list length; capped by the catalogue.
        exclude: (user index, item row) pairs that must not appear.

    """
    scores = users @ items.T
    if exclude is not None:
        excluded = tuple(torch.from_numpy(rows).to(scores.device).long() for rows in exclude)
        scores[excluded] = -torch.inf
    best = torch.topk(scores, min(k, len(items)), dim=1)
    return best.indices.masked_fill(best.values == -torch.inf, -1)
