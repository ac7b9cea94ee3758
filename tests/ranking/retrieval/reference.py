"""What searches are compared with."""

from __future__ import annotations

import numpy as np

from features.data.dataset import BoolArray, FloatArray


def exact_rows(
    vectors: FloatArray, queries: FloatArray, k: int, allowed: BoolArray | None = None
) -> np.ndarray:
    """Return the rows of the largest products, ties by row, [queries, k], padded with -1."""
    scores = queries @ vectors.T
    if allowed is not None:
        scores[:, ~allowed] = -np.inf
    rows = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    return np.where(np.isfinite(np.take_along_axis(scores, rows, axis=1)), rows, -1)


def random_mask(items: int, share: float, seed: int = 0) -> BoolArray:
    """Return a mask of a share of the items, [items]."""
    chosen = np.zeros(items, dtype=np.bool_)
    chosen[np.random.default_rng(seed).permutation(items)[: int(share * items)]] = True
    return chosen
