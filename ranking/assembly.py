"""From encoder outputs and statistics to the arrays that retrieval and ranking read."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from conf.schema import CandidateConfig
from encoders.device import CPU
from encoders.factors.co_purchase import IMPUTATION_NEIGHBOURS, Factors
from encoders.towers.towers import Towers
from features.candidates.features import ItemArrays
from features.data.arrays import map_rows
from features.data.dataset import BoolArray, FloatArray, IntArray
from features.data.statistics import Neighbours, Statistics
from ranking.retrieval.index_choice import build_index
from ranking.retrieval.searcher import VectorSearcher

PCA_DIM = 64
"""Width of the reduced text vectors that similarity features read."""
DEMAND_NEIGHBOURS = 10
"""Nearest texts whose recent demand an item has as a feature."""
_ROWS = 1 << 16
"""Rows centred at a time."""
_QUERIES = 1 << 13
"""Vectors searched for at a time: an approximate index has thousands of candidates for each in memory."""


def unit(vectors: FloatArray) -> FloatArray:
    """Scale rows to length one; zero rows stay zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: FloatArray = (vectors / np.maximum(lengths, 1e-9)).astype(np.float32, copy=False)
    return scaled


@dataclass(frozen=True)
class PcaProjection:
    """Projection of text vectors onto the principal components of a catalogue's texts."""

    mean: FloatArray  # [text dim]
    directions: FloatArray  # [text dim, at most 64], largest variance first

    @classmethod
    def fit(cls, text_vectors: FloatArray) -> PcaProjection:
        """Return the projection onto the components of largest variance of text vectors [items, text dim]."""
        mean = text_vectors.mean(axis=0)
        covariance = np.zeros((len(mean), len(mean)))
        for start in range(0, len(text_vectors), _ROWS):
            centred = text_vectors[start : start + _ROWS] - mean
            covariance += centred.T @ centred
        _, directions = np.linalg.eigh(covariance)
        return cls(mean, directions[:, ::-1][:, :PCA_DIM].astype(np.float32))

    def units(self, text_vectors: FloatArray, room: int = 0) -> FloatArray:
        """Project text vectors, of the fitted catalogue or later ones.

        Args:
            text_vectors: [items, text dim].
            room: rows of spare memory reserved behind them.

        Returns:
            Unit vectors, [items, at most 64].

        """
        return map_rows(self._units, text_vectors, self.directions.shape[1], room)

    def _units(self, text_vectors: FloatArray) -> FloatArray:
        centred: FloatArray = text_vectors - self.mean
        return unit(centred @ self.directions)


def pca_units(text_vectors: FloatArray) -> FloatArray:
    """Project text vectors onto their own principal components, unit length, [items, at most 64]."""
    return PcaProjection.fit(text_vectors).units(text_vectors)


def text_neighbours(units: FloatArray, k: int, device: torch.device = CPU) -> Neighbours:
    """Return each item's k nearest other items by text, [items, k], searched on a device."""
    index = build_index(units, device=device)
    ids = np.full((len(units), k), -1, dtype=np.int32)
    weights = np.zeros((len(units), k), dtype=np.float32)
    for start in range(0, len(units), _QUERIES):
        block = slice(start, start + _QUERIES)
        rows, cosines = index.search(units[block], k + 1)
        own = rows == np.arange(start, start + len(rows))[:, None]
        order = np.argsort(own | (rows < 0), axis=1, kind="stable")[:, :k]
        kept = np.take_along_axis(rows, order, axis=1)
        kept[np.take_along_axis(own, order, axis=1)] = -1
        values = np.maximum(np.take_along_axis(cosines, order, axis=1), 0.0)
        ids[block, : kept.shape[1]] = kept
        weights[block, : kept.shape[1]] = np.where(kept >= 0, values, 0.0)
    return Neighbours(ids, weights)


def nearest_lenders(index: VectorSearcher, borrowers: FloatArray, lends: BoolArray) -> Neighbours:
    """Return the items whose factors others are imputed from, as `imputation_neighbours`, by vector search.

    Args:
        index: over the affinity vectors of the whole catalogue.
        borrowers: affinity vectors of the items without factors, [borrowers, dim].
        lends: [items] mask of the items with trained factors.

    """
    ids = np.empty((len(borrowers), IMPUTATION_NEIGHBOURS), dtype=np.int32)
    weights = np.empty(ids.shape, dtype=np.float32)
    for start in range(0, len(borrowers), _QUERIES):
        block = slice(start, start + _QUERIES)
        ids[block], cosines = index.search(borrowers[block], IMPUTATION_NEIGHBOURS, lends)
        np.maximum(cosines, 0.0, out=weights[block])
    return Neighbours(ids, weights)


def near_recent(near: IntArray, statistics: Statistics) -> FloatArray:
    """Return the recent demand for the nearest texts of each item, the only demand signal of a new item.

    Args:
        near: nearest texts of some items, [rows, k], padded with -1.
        statistics: of the whole catalogue.

    Returns:
        Mean of log(1 + recent demand) over the `DEMAND_NEIGHBOURS` nearest, [rows].

    """
    ids = near[:, :DEMAND_NEIGHBOURS]
    recent = np.where(ids >= 0, np.log1p(statistics.recent[np.maximum(ids, 0)]), 0.0)
    mean: FloatArray = (recent.sum(axis=1) / np.maximum((ids >= 0).sum(axis=1), 1)).astype(np.float32)
    return mean


def item_arrays(
    statistics: Statistics,
    text_vectors: FloatArray,
    towers: Towers | None,
    config: CandidateConfig,
    near: Neighbours | None = None,
    item_vectors: FloatArray | None = None,
    factors: Factors | None = None,
    units: FloatArray | None = None,
    affinity_units: FloatArray | None = None,
) -> ItemArrays:
    """Compute the item-side arrays; without towers, items are compared by their text vectors.

    Args:
        statistics: item statistics.
        text_vectors: unit text vectors, [items, text dim].
        towers: trained towers or None.
        config: neighbour count.
        near: text neighbours when they are already known.
        item_vectors: the towers' vectors when they are already known.
        factors: co-purchase factors or None.
        units: PCA projections of the text vectors when they are already known.
        affinity_units: unit affinity vectors, close for items bought together, [items, dim]; None for none.

    """
    if item_vectors is None:
        item_vectors = text_vectors if towers is None else towers.item_vectors(text_vectors)
    if units is None:
        units = pca_units(text_vectors)
    near = near or text_neighbours(units, config.neighbours)
    none = np.zeros((len(units), 0), dtype=np.float32)
    return ItemArrays(
        statistics=statistics,
        item_vectors=item_vectors,
        item_units=map_rows(unit, item_vectors, item_vectors.shape[1]),
        text_units=units,
        affinity_units=none if affinity_units is None else affinity_units,
        text_near=near,
        text_near_recent=near_recent(near.ids, statistics),
        factor_vectors=none if factors is None else factors.vectors,
    )
