"""The item tower: text vectors, whitened and projected, plus an id residual for items with events.

Either part can be left out: text alone (`hybrid=False`), or ids alone (`text=False`), as SASRec's item
embeddings.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from features.data.dataset import BoolArray, FloatArray

_ROWS: Final = 1 << 16
"""Text vectors centred at a time, in float64."""


def whitening(
    text_vectors: FloatArray, shrinkage: float = 0.01, width: int | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return the mean [dim] and matrix [dim, width] that decorrelate text vectors.

    Sentence vectors crowd into a narrow cone; PCA whitening spreads them (Su et al. 2021, arXiv:2103.15316).
    The eigenvalues are shrunk towards their mean, so that a small catalogue does not blow up its empty
    directions. A width below the vectors' own keeps the directions in which they vary most.
    """
    mean = text_vectors.mean(axis=0)
    covariance = np.zeros((len(mean), len(mean)))
    for start in range(0, len(text_vectors), _ROWS):
        centred = (text_vectors[start : start + _ROWS] - mean).astype(np.float64)
        covariance += centred.T @ centred
    covariance /= max(len(text_vectors), 1)
    values, directions = np.linalg.eigh(covariance)
    floor = shrinkage * max(float(values.mean()), 1e-12)
    scale = 1.0 / np.sqrt(np.maximum(values, 0.0) + floor)
    if width is not None and width < len(mean):
        matrix = directions[:, -width:] * scale[-width:]
    else:
        matrix = (directions * scale) @ directions.T
    # Unit variance per direction would grow the norm with the width; keep vectors near unit length.
    return mean.astype(np.float32), (matrix / np.sqrt(matrix.shape[1])).astype(np.float32)


class ItemTower(nn.Module):
    """Item rows to vectors in the space of the user vectors."""

    mean: Tensor
    whiten: Tensor
    seen: Tensor

    def __init__(self, text_dim: int, items: int, dim: int, hybrid: bool, text: bool = True) -> None:
        """Build the tower; `fit_text` and `seen` fill its buffers."""
        super().__init__()
        self.register_buffer("mean", torch.zeros(text_dim))
        self.register_buffer("whiten", torch.eye(text_dim))
        self.register_buffer("seen", torch.zeros(items, dtype=torch.bool))
        self.project = nn.Linear(text_dim, dim) if text else None
        self.residual = nn.Embedding(items, dim) if hybrid else None
        if self.residual is not None:
            nn.init.normal_(self.residual.weight, std=0.02)

    def fit_text(self, text_vectors: FloatArray, seen: BoolArray) -> None:
        """Set the whitening from the catalogue and mark the items of training events."""
        mean, matrix = whitening(text_vectors)
        self.mean.copy_(torch.from_numpy(mean))
        self.whiten.copy_(torch.from_numpy(matrix))
        self.seen.copy_(torch.from_numpy(seen))

    def whitened(self, text: Tensor) -> Tensor:
        """Whiten text vectors [..., text dim]; it has no trainable weights, so training computes it once."""
        whitened: Tensor = (text - self.mean) @ self.whiten
        return whitened

    def whitened_catalogue(self, text_vectors: FloatArray) -> Tensor:
        """Return `whitened` of a catalogue's text vectors, [items, text dim], computed in blocks."""
        whitened = torch.empty(text_vectors.shape)
        for start in range(0, len(text_vectors), _ROWS):
            part = slice(start, start + _ROWS)
            whitened[part] = self.whitened(torch.from_numpy(text_vectors[part]))
        return whitened

    def forward(self, whitened: Tensor, rows: Tensor, keep_id: Tensor | None = None) -> Tensor:
        """Return vectors [..., dim].

        Args:
            whitened: whitened text vectors of the rows, [..., text dim].
            rows: catalogue rows, [...].
            keep_id: bool [...]; False represents an item by its text alone (training-time id dropout).

        """
        use = self.seen[rows] if keep_id is None or self.project is None else self.seen[rows] & keep_id
        return self.combined(whitened, None if self.residual is None else self.residual(rows), use)

    def combined(self, whitened: Tensor, residual: Tensor | None, use: Tensor) -> Tensor:
        """Return vectors [..., dim] of whitened texts and, where `use` [...] is True, of residuals."""
        if self.project is None:
            assert residual is not None, "an item is known by its text, its id, or both"
            # Without text there is no fallback for an id: dropout would only blank items.
            known: Tensor = residual * use.unsqueeze(-1)
            return known
        vectors: Tensor = self.project(whitened)
        return vectors if residual is None else vectors + residual * use.unsqueeze(-1)
