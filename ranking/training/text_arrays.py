"""What a recommender derives from the catalogue's texts alone, made once for all its cuts in time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import torch

from conf.schema import PipelineConfig
from encoders.device import resolve_device
from encoders.factors.affinity import Affinity, imputation_neighbours
from encoders.factors.co_purchase import IMPUTATION_NEIGHBOURS
from features.data.dataset import BoolArray, FloatArray, IntArray
from features.data.statistics import Neighbours
from ranking.assembly import nearest_lenders, pca_units, text_neighbours
from ranking.retrieval.index_choice import CatalogueIndex, build_index, device_index

EXACT: Final = 1_000_000_000_000
"""Most products of numbers in an exact search for the items whose factors others are imputed from: about a
minute on two cores. Above it the search is approximate, as in a server."""


@dataclass(frozen=True)
class TextArrays:
    """Arrays and indexes over the text vectors of a catalogue."""

    vectors: FloatArray
    """Unit text vectors, [items, text dim]."""
    device: torch.device
    """Where indexes are searched."""
    units: FloatArray
    """Their PCA projections, see `ranking.assembly.pca_units`."""
    near: Neighbours
    """Nearest texts of each item."""
    affinity: Affinity | None = None
    affinity_units: FloatArray | None = None
    """Affinity vectors, [items, text dim]; None without affinity."""

    @classmethod
    def of(
        cls,
        config: PipelineConfig,
        vectors: FloatArray,
        affinity: Affinity | None = None,
        near: Neighbours | None = None,
    ) -> TextArrays:
        """Compute the arrays.

        Args:
            config: device, and number of neighbours.
            vectors: unit text vectors, [items, text dim].
            affinity: the affinity map; None for none.
            near: nearest texts of each item where they are known.
        """
        device, units = resolve_device(config.device), pca_units(vectors)
        near = near or text_neighbours(units, config.candidates.neighbours, device)
        return cls(vectors, device, units, near).mapped_by(affinity)

    def mapped_by(self, affinity: Affinity | None) -> TextArrays:
        """Return the same arrays with those of another affinity map."""
        units = None if affinity is None else affinity.units(self.vectors)
        return replace(self, affinity=affinity, affinity_units=units)

    @cached_property
    def index(self) -> CatalogueIndex:
        """Index over the text vectors."""
        return build_index(self.vectors, device=self.device)

    @cached_property
    def on_gpu(self) -> CatalogueIndex | None:
        """Index over the affinity vectors on a GPU; None on a CPU, or without affinity."""
        return None if self.affinity_units is None else device_index(self.affinity_units, self.device)

    @cached_property
    def _lenders(self) -> CatalogueIndex:
        """Index over the affinity vectors of a large catalogue."""
        assert self.affinity_units is not None
        return build_index(self.affinity_units, device=self.device)

    def lenders(self, rows: IntArray, known: BoolArray) -> Neighbours:
        """Return the items from whose factors those of others are imputed, [rows, k].

        Args:
            rows: items without factors.
            known: [items] those with factors.
        """
        units = self.affinity_units
        if units is None:
            return Neighbours(self.near.ids[rows], self.near.weights[rows])
        exact = len(rows) * int(known.sum()) * units.shape[1] <= EXACT
        if self.on_gpu is None and exact:
            return imputation_neighbours(units[rows], units, known, IMPUTATION_NEIGHBOURS)
        return nearest_lenders(self.on_gpu or self._lenders, units[rows], known)
