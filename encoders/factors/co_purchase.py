"""Co-purchase factors: items bought by the same people lie close, whatever they are called and whenever.

Implicit-feedback matrix factorisation (Hu, Koren and Volinsky, ICDM 2008), fitted by the `implicit` library.
A transformer reads the order of a history; the factors read its set, all of it at once, and a user's vector
is solved from the history at hand, so a click counts without refitting.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file
from scipy import sparse

from conf.schema import FactorConfig
from encoders.factors.als import fit_als
from encoders.factors.user_factors import solve_user_factors
from features.data.arrays import load_arrays
from features.data.dataset import BoolArray, Events, FloatArray, IntArray, LongArray
from features.data.histories import HistoryBatch
from features.data.statistics import Neighbours

if TYPE_CHECKING:
    import torch

FACTORS_FILE = "factors.safetensors"
LONGEST = 256
"""Most recent events that a user's vector is solved from; bounds the time of a request."""
LENDERS = 20
"""Nearest texts whose factors stand in for those of an item without events."""
SHARPNESS = 10.0
"""How much more a nearer text counts: the share grows by e for every tenth of cosine."""


@dataclass(frozen=True)
class Factors:
    """Item factors, ready to solve users' vectors."""

    vectors: FloatArray  # [items, dim]; zero for an item without events until `lend`
    dual: FloatArray  # [items, dim] vectors times the inverse of (their Gram matrix + L2)
    confidence: FloatArray  # [1] weight of an observed event against an absent one
    kind_weights: FloatArray  # [kinds] worth of each event kind

    @classmethod
    def fit(
        cls,
        events: Events,
        positions: LongArray,
        items: int,
        kind_weights: FloatArray,
        config: FactorConfig,
        seed: int,
        device: torch.device | None = None,
    ) -> Factors | None:
        """Factorise the events at `positions`; None where there are none.

        Args:
            events: all events.
            positions: which of them may be known.
            items: catalogue size.
            kind_weights: worth of each event kind, [kinds].
            config: width, confidence, L2 weight and iterations.
            seed: of the starting factors.
            device: where they are fitted, see `fit_als`; None is the CPU.

        """
        weight = kind_weights[events.kind[positions]].astype(np.float32)
        positions, weight = positions[weight > 0], weight[weight > 0]
        if len(positions) == 0 or config.dim == 0:
            return None
        shape = (events.users, items)
        matrix = sparse.csr_matrix((weight, (events.user[positions], events.item[positions])), shape=shape)
        matrix.data = np.log1p(matrix.data)  # ten purchases are not ten times as sure as one
        model = fit_als(
            matrix, factors=config.dim, regularisation=config.regularisation, confidence=config.confidence,
            iterations=config.iterations, seed=seed, device=device,
        )  # fmt: skip
        vectors = np.array(model.item_factors, dtype=np.float32)
        vectors[np.bincount(events.item[positions], minlength=items) == 0] = 0.0
        gram = vectors.T.astype(np.float64) @ vectors + config.regularisation * np.eye(vectors.shape[1])
        dual = np.linalg.solve(gram, vectors.T.astype(np.float64)).T
        confidence = np.array([config.confidence], dtype=np.float32)
        return cls(vectors, dual.astype(np.float32), confidence, kind_weights.astype(np.float32))

    @property
    def known(self) -> BoolArray:
        """Tell which items have factors of their own, or borrowed ones, [items]."""
        known: BoolArray = np.abs(self.vectors).sum(axis=1) > 0
        return known

    def lend(self, near: Neighbours, rows: IntArray | None = None) -> Factors:
        """Give items without events the weighted mean of what reads like them.

        Without this a new item would have no place in the space: nobody could be led to it, and a click on it
        would say nothing.

        Args:
            near: lists of nearest items of those that borrow.
            rows: who borrows; None: every item without events, `near` having a list for each item.

        """
        known = self.known
        if rows is None:
            rows = np.flatnonzero(~known).astype(np.int32)
            near = Neighbours(near.ids[rows], near.weights[rows])
        vectors, dual = self.vectors.copy(), self.dual.copy()
        vectors[rows], dual[rows] = self.lent(near, known)
        return replace(self, vectors=vectors, dual=dual)

    def lent(self, near: Neighbours, known: BoolArray) -> tuple[FloatArray, FloatArray]:
        """Return the factors and duals that items borrow from what reads like them, each [rows, dim].

        Args:
            near: nearest texts of the items that borrow, [rows, k].
            known: [items] items with events: only those can lend.

        """
        ids = np.maximum(near.ids, 0)
        lenders = (near.ids >= 0) & known[ids]
        lenders &= np.cumsum(lenders, axis=1) <= LENDERS
        ids = np.where(lenders, ids, 0)  # the others may not have been written yet
        share = np.where(lenders, np.exp(SHARPNESS * near.weights), 0.0).astype(np.float32)
        share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-9)
        return (share[:, None, :] @ self.vectors[ids])[:, 0], (share[:, None, :] @ self.dual[ids])[:, 0]

    def users(self, batch: HistoryBatch) -> FloatArray:
        """Solve a vector per history, [queries, dim]; zero for an empty one.

        A history does not depend on the ones beside it, nor on what lies further back than `LONGEST` events.

        Args:
            batch: the histories.

        """
        users = np.empty((len(batch), self.vectors.shape[1]), dtype=np.float32)
        solve_user_factors(
            batch.items,
            batch.kinds,
            batch.offsets,
            self.kind_weights,
            float(self.confidence[0]),
            LONGEST,
            self.vectors,
            self.dual,
            users,
        )
        return users

    def save(self, path: Path) -> None:
        """Write every array."""
        save_file({f.name: np.ascontiguousarray(getattr(self, f.name)) for f in fields(self)}, path)

    @classmethod
    def load(cls, path: Path, room: int = 0) -> Factors:
        """Read factors written by `save`, with room for more rows."""
        return cls(**load_arrays(path, room))
