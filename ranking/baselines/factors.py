"""Baselines from linear algebra: EASE in closed form, and ALS from the `implicit` library."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from scipy.linalg import lapack
from threadpoolctl import threadpool_limits
from torch import Tensor

from conf.errors import InputError
from encoders.device import CPU, upload
from encoders.factors.als import fit_als
from features.data.dataset import BoolArray, Events, FloatArray, IntArray, LongArray
from features.data.histories import HistoryBatch
from features.data.splits import Queries
from ranking.baselines.items import profile
from ranking.baselines.lists import (
    descending,
    popularity_floor,
    popularity_share,
    prefix_positions,
    rank_catalogue,
    weighted_counts,
)
from ranking.kernels.dense_scores import DenseScores, Floor

SINGULAR = "evaluation.baselines: ease could not invert its matrix; raise its regularisation"


class Ease:
    """Embarrassingly shallow autoencoder (Steck 2019): a linear item-to-item model in closed form.

    The item Gram matrix is inverted densely, so only the most popular `max_items` items are modelled; the
    others follow by popularity. 20,000 items take 1.6 GB, and about 5 GB while fitting. On a GPU
    both the inversion and the scores are done there.
    """

    name = "ease"

    def __init__(
        self,
        regularisation: float = 100.0,
        max_items: int = 20_000,
        recency_power: float = 0.8,
        kind_weights: FloatArray | None = None,
        device: torch.device = CPU,
    ) -> None:
        """Take the L2 weight, size limit, recency exponent (see `profile`), and a device."""
        self.device = device
        self.regularisation = regularisation
        self.max_items = max_items
        self.recency_power = recency_power
        self.kind_weights = kind_weights

    def fit(self, events: Events, end: LongArray, now: int, n_items: int) -> None:
        """Invert the Gram matrix of the prefix."""
        positions = prefix_positions(events, end)
        counts = weighted_counts(events, end, n_items, self.kind_weights)
        self.share = popularity_share(counts)
        self.n_items = n_items
        self.kept = np.sort(descending(counts)[: self.max_items])  # [kept] rows
        shape = (events.users, n_items)
        ones = np.ones(len(positions), dtype=np.float32)
        taken = sparse.csr_matrix((ones, (events.user[positions], events.item[positions])), shape=shape)
        taken.data[:] = 1.0  # binary, not counts
        taken = taken[:, self.kept]
        gram = (taken.T @ taken).toarray(order="F")  # [kept, kept]
        gram[np.diag_indices(len(self.kept))] += self.regularisation
        if self.device.type != "cpu":
            self._fit_on_device(gram)
            return
        # Cholesky in place: the matrix is positive definite, and a second copy of it would double the memory.
        factor, failed = lapack.spotrf(gram, lower=1, overwrite_a=1)
        inverse, singular = lapack.spotri(factor, lower=1, overwrite_c=1)
        if failed or singular:
            raise InputError(SINGULAR)
        weights = np.tril(inverse, -1)
        weights += weights.T
        weights /= -np.diagonal(inverse)  # column j by its own diagonal entry; the diagonal itself stays 0
        self.weights: FloatArray = weights

    def _fit_on_device(self, gram: FloatArray) -> None:
        """Invert the Gram matrix [kept, kept] on the device, where the weights remain."""
        factor, failed = torch.linalg.cholesky_ex(upload(np.ascontiguousarray(gram), self.device))
        if bool(failed):
            raise InputError(SINGULAR)
        weights = torch.cholesky_inverse(factor)
        weights /= -weights.diagonal().clone()
        self._weights_on_device = weights.fill_diagonal_(0.0)
        self._kept_on_device = upload(self.kept.astype(np.int64), self.device)
        known = self.share > 0  # items without events have no weights
        known &= np.isin(np.arange(self.n_items), self.kept)
        self._floor = Floor(self.share, known, self.device)

    def recommend(
        self,
        events: Events,
        queries: Queries,
        k: int,
        exclude_seen: bool,
        allowed: BoolArray | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Rank by history @ weights, with newer items weighted higher; items outside the model follow."""

        def score(histories: HistoryBatch) -> FloatArray | Tensor:
            history = profile(histories, self.n_items, self.recency_power, self.kind_weights)[:, self.kept]
            if self.device.type != "cpu":
                there = torch.zeros(len(histories), self.n_items, device=self.device)
                there[:, self._kept_on_device] = (
                    upload(history.toarray(), self.device) @ self._weights_on_device
                )
                return self._floor.under(there, np.diff(history.indptr) > 0)
            scores = np.zeros((len(histories), self.n_items), dtype=np.float32)
            scores[:, self.kept] = history @ self.weights
            covered = np.zeros(scores.shape, dtype=np.bool_)
            covered[:, self.kept] = self.share[self.kept] > 0  # items without events have no weights
            covered &= np.diff(history.indptr)[:, None] > 0
            return popularity_floor(scores, self.share, covered)

        return rank_catalogue(events, queries, self.n_items, k, exclude_seen, score, allowed)

    def describe(self) -> str:
        """Describe the method and its size limit."""
        scope = (
            "all items"
            if len(self.kept) == self.n_items
            else (
                f"only the {len(self.kept):,} most popular of {self.n_items:,} items, the rest by popularity"
            )
        )
        return f"closed-form linear item-to-item model, L2 {self.regularisation:g}, {scope}"


class Als:
    """Weighted matrix factorisation by alternating least squares (Hu et al. 2008), from `implicit`.

    A user's vector is solved from the query's history, so that it reflects events after fitting.
    """

    name = "als"

    def __init__(
        self,
        factors: int = 256,
        regularisation: float = 0.1,
        alpha: float = 40.0,
        iterations: int = 15,
        seed: int = 0,
        kind_weights: FloatArray | None = None,
        device: torch.device = CPU,
    ) -> None:
        """Take the parameters, and the device of fitting and scoring."""
        self.device = device
        self.factors = factors
        self.regularisation = regularisation
        self.alpha = alpha
        self.iterations = iterations
        self.seed = seed
        self.kind_weights = kind_weights

    def _confidence(
        self,
        users: npt.NDArray[np.integer],
        items: npt.NDArray[np.integer],
        kinds: npt.NDArray[np.int8],
        shape: tuple[int, int],
    ) -> sparse.csr_matrix:
        """Return log(1 + events) per user and item: confidence grows less than linearly with events."""
        weight = np.ones(len(users)) if self.kind_weights is None else self.kind_weights[kinds]
        matrix = sparse.csr_matrix((weight.astype(np.float32), (users, items)), shape=shape)
        matrix.data = np.log1p(matrix.data)
        return matrix

    def fit(self, events: Events, end: LongArray, now: int, n_items: int) -> None:
        """Factorise the prefix."""
        positions = prefix_positions(events, end)
        self.share = popularity_share(weighted_counts(events, end, n_items, self.kind_weights))
        matrix = self._confidence(
            events.user[positions], events.item[positions], events.kind[positions], (events.users, n_items)
        )
        self.model = fit_als(
            matrix, factors=self.factors, regularisation=self.regularisation, confidence=self.alpha,
            iterations=self.iterations, seed=self.seed, device=self.device,
        )  # fmt: skip
        if self.device.type != "cpu":
            factors = np.asarray(self.model.item_factors, dtype=np.float32)
            self._there = DenseScores(factors, self.share, self.share > 0, self.device)

    def recommend(
        self,
        events: Events,
        queries: Queries,
        k: int,
        exclude_seen: bool,
        allowed: BoolArray | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Rank by the inner product with vectors solved from each history; without one, by popularity."""
        n_items = len(self.share)
        factors: FloatArray = np.asarray(self.model.item_factors, dtype=np.float32)

        def score(histories: HistoryBatch) -> FloatArray | Tensor:
            matrix = self._confidence(
                histories.owners(), histories.items, histories.kinds, (len(histories), n_items)
            )
            with threadpool_limits(1, "blas"):
                users = self.model.recalculate_user(np.arange(len(histories)), matrix)
            if self.device.type != "cpu":
                return self._there.of(np.asarray(users, dtype=np.float32), np.diff(matrix.indptr) > 0)
            scores = np.asarray(users, dtype=np.float32) @ factors.T
            covered = (np.diff(matrix.indptr)[:, None] > 0) & (self.share > 0)  # no vector without events
            return popularity_floor(scores, self.share, covered)

        return rank_catalogue(events, queries, n_items, k, exclude_seen, score, allowed)

    def describe(self) -> str:
        """Describe the method."""
        return (
            f"alternating least squares, {self.factors} factors, alpha {self.alpha:g}, "
            f"L2 {self.regularisation:g}, {self.iterations} iterations"
        )
