"""Co-purchase factors: items bought by the same users have similar vectors, whatever their texts.

Implicit-feedback matrix factorisation (Hu, Koren and Volinsky, ICDM 2008), fitted by the `implicit` library.
A transformer reads the order of a history, the factors read it as a set. A user's vector is solved from the
current history, so a click counts without refitting.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors.numpy import save_file

from conf.schema import FactorConfig
from encoders.factors.als import fit_als
from encoders.factors.user_factors import solve_user_factors
from features.data.arrays import load_arrays
from features.data.dataset import BoolArray, Events, FloatArray, IntArray, LongArray
from features.data.histories import HistoryBatch
from features.data.prefixes import drawn_users, user_blocks
from features.data.splits import ragged_ranges
from features.data.statistics import Neighbours

if TYPE_CHECKING:
    import torch
    from scipy import sparse  # imported where factors are fitted: a server only reads them

FACTORS_FILE = "factors.safetensors"
LONGEST = 256
"""Most recent events that a user's vector is solved from; bounds the time of a request."""
IMPUTATION_NEIGHBOURS = 20
"""Nearest items from whose factors those of an item without events are imputed."""
SHARPNESS = 10.0
"""Inverse temperature of the imputation weights: they grow by e for every tenth of cosine."""
IMPUTED = 1 << 12
"""Items imputed at a time, each from a copy of up to 50 neighbours' factors."""
SOLVED = 1 << 16
"""Items whose duals are solved at a time, in float64."""
EVENTS_PER_USER = 8
"""Least events that a drawn user stands for where their number is limited: a vector per user takes memory."""


def dual_of(vectors: FloatArray, regularisation: float) -> FloatArray:
    """Return vectors times the inverse of (their Gram matrix + L2), [items, dim], solved in float64."""
    blocks = [slice(start, start + SOLVED) for start in range(0, len(vectors), SOLVED)]
    gram = regularisation * np.eye(vectors.shape[1])
    for rows in blocks:
        gram += vectors[rows].T.astype(np.float64) @ vectors[rows]
    dual = np.empty_like(vectors)
    for rows in blocks:
        dual[rows] = np.linalg.solve(gram, vectors[rows].T.astype(np.float64)).T
    return dual


def behaviour(
    events: Events, users: IntArray, end: LongArray, items: int, kind_weights: FloatArray
) -> sparse.csr_matrix:
    """Return log(1 + summed weights) of what users chose before `end`, sparse [drawn users, items].

    Ten purchases are not ten times the confidence of one. Built in blocks of users: a block's events take 20
    bytes each, the finished matrix 8 for each user and item.
    """
    from scipy import sparse

    begin = events.offsets[users]
    sizes = end[users] - begin
    data, indices, counts = [], [], [np.zeros(1, dtype=np.int64)]
    for first, last in user_blocks(np.concatenate([[0], np.cumsum(sizes)])):
        positions = ragged_ranges(begin[first:last], sizes[first:last])
        owners = np.repeat(np.arange(last - first, dtype=np.int32), sizes[first:last])
        weight = kind_weights[events.kind[positions]].astype(np.float32)
        positions, owners, weight = positions[weight > 0], owners[weight > 0], weight[weight > 0]
        block = sparse.csr_matrix((weight, (owners, events.item[positions])), shape=(last - first, items))
        data.append(np.log1p(block.data))
        indices.append(block.indices.astype(np.int32, copy=False))
        counts.append(np.diff(block.indptr).astype(np.int64))
    if not data:
        return sparse.csr_matrix((0, items), dtype=np.float32)
    offsets = np.cumsum(np.concatenate(counts))
    return sparse.csr_matrix(
        (np.concatenate(data), np.concatenate(indices), offsets), shape=(len(users), items)
    )


@dataclass(frozen=True)
class Factors:
    """Item factors, ready to solve users' vectors."""

    vectors: FloatArray  # [items, dim]; zero for an item without events until `impute`
    dual: FloatArray  # [items, dim] vectors times the inverse of (their Gram matrix + L2)
    confidence: FloatArray  # [1] weight of an observed event against an absent one
    kind_weights: FloatArray  # [kinds] weight of each event kind

    @classmethod
    def fit(
        cls,
        events: Events,
        end: LongArray,
        items: int,
        kind_weights: FloatArray,
        config: FactorConfig,
        seed: int,
        device: torch.device | None = None,
    ) -> Factors | None:
        """Factorise the events before `end`; None where there are none.

        Of more than `config.max_events`, those of users drawn with the seed are factorised: the memory grows
        with them, and items need few users each.

        Args:
            events: all events.
            end: position after each user's events to learn from, [users].
            items: catalogue size.
            kind_weights: weight of each event kind, [kinds].
            config: width, confidence, L2 weight and iterations.
            seed: of the starting factors.
            device: where they are fitted, see `fit_als`; None is the CPU.

        """
        if config.dim == 0:
            return None
        users = drawn_users(end - events.offsets[:-1], config.max_events, seed, EVENTS_PER_USER)
        matrix = behaviour(events, users, end, items, kind_weights)
        known = np.bincount(matrix.indices, minlength=items) > 0
        if matrix.nnz == 0:
            return None
        model = fit_als(
            matrix, factors=config.dim, regularisation=config.regularisation, confidence=config.confidence,
            iterations=config.iterations, seed=seed, device=device,
        )  # fmt: skip
        vectors = np.asarray(model.item_factors, dtype=np.float32)
        del model, matrix  # with a vector for each user
        vectors[~known] = 0.0
        confidence = np.array([config.confidence], dtype=np.float32)
        dual = dual_of(vectors, config.regularisation)
        return cls(vectors, dual, confidence, kind_weights.astype(np.float32))

    @property
    def known(self) -> BoolArray:
        """Return which items have factors, fitted or imputed, [items]."""
        known: BoolArray = np.asarray(self.vectors.any(axis=1))
        return known

    def impute(self, near: Neighbours, rows: IntArray | None = None) -> Factors:
        """Impute the factors of items without events: the weighted mean of their nearest neighbours'.

        Without factors a new item could not be proposed, and a click on it would have no effect.

        Args:
            near: nearest items of `rows`, [rows, k].
            rows: items to impute; None: every item without events, `near` being [items, k].

        """
        known = self.known
        if rows is None:
            rows = np.flatnonzero(~known).astype(np.int32)
            near = Neighbours(near.ids[rows], near.weights[rows])
        vectors, dual = self.vectors.copy(), self.dual.copy()
        vectors[rows], dual[rows] = self.imputed(near, known)
        return replace(self, vectors=vectors, dual=dual)

    def imputed(self, near: Neighbours, known: BoolArray) -> tuple[FloatArray, FloatArray]:
        """Return factors and duals imputed from neighbours, each [rows, dim], computed in blocks of rows.

        Args:
            near: nearest items, [rows, k].
            known: [items] items with events; other neighbours are ignored.

        """
        vectors = np.empty((len(near.ids), self.vectors.shape[1]), dtype=np.float32)
        dual = np.empty_like(vectors)
        for start in range(0, len(vectors), IMPUTED):
            rows = slice(start, start + IMPUTED)
            ids, weights = np.maximum(near.ids[rows], 0), near.weights[rows]
            donors = (near.ids[rows] >= 0) & known[ids]
            donors &= np.cumsum(donors, axis=1) <= IMPUTATION_NEIGHBOURS
            ids = np.where(donors, ids, 0)  # other rows may not be written yet
            share = np.where(donors, np.exp(SHARPNESS * weights), 0.0).astype(np.float32)
            share /= np.maximum(share.sum(axis=1, keepdims=True), 1e-9)
            vectors[rows] = (share[:, None, :] @ self.vectors[ids])[:, 0]
            dual[rows] = (share[:, None, :] @ self.dual[ids])[:, 0]
        return vectors, dual

    def users(self, batch: HistoryBatch) -> FloatArray:
        """Solve a vector per history, [queries, dim]; zero for an empty one.

        A vector depends on its own history's newest `LONGEST` events alone.

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
