"""The indexes that candidate sources search, and the popularity order."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from conf.schema import IndexConfig
from encoders.device import CPU
from features.candidates.features import ItemArrays
from features.data.dataset import FloatArray, IntArray
from ranking.retrieval.device_index import DeviceIndex
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.index_choice import CatalogueIndex, build_index, device_index
from ranking.retrieval.searcher import VectorSearcher
from ranking.retrieval.subset_index import SubsetIndex

OLD_EVENT_WEIGHT = 1e-3
"""Weight of an event in popularity whatever its age."""


def popularity(recent: FloatArray, count: FloatArray) -> FloatArray:
    """Return the popularity of items, [items]: recent demand, ties broken by all events."""
    return recent + np.float32(OLD_EVENT_WEIGHT) * count


def popularity_order(popularity: FloatArray) -> IntArray:
    """Return rows by descending popularity, [items]; items without any in a fixed random order.

    Row numbers often follow the date of addition, which must not pass for popularity where a filter leaves
    only new items.
    """
    drawn = np.random.default_rng(0).random(len(popularity))
    tie = np.where(popularity > 0, 0.0, drawn)
    return np.lexsort((tie, -popularity)).astype(np.int32)


def new_rows(count: FloatArray) -> IntArray:
    """Return the rows of items without events; none where all items are without."""
    new = np.flatnonzero(count == 0).astype(np.int32)
    return new if len(new) < len(count) else new[:0]


def new_vectors(arrays: ItemArrays) -> FloatArray:
    """Return the most informative vectors of items without events, [items, dim]."""
    if arrays.affinity_units.shape[1]:
        return arrays.affinity_units
    return arrays.factor_vectors if arrays.factor_vectors.shape[1] else arrays.item_vectors


def _exact_vectors(index: VectorIndex) -> VectorIndex:
    """Return an exact index over the same vectors; the index itself where it is exact."""
    return index if index.exact else VectorIndex.build(index.vectors, IndexConfig(factory="Flat"))


def _exact(index: VectorSearcher) -> VectorSearcher:
    """Return an exact index over the same rows; the index itself where it is exact, as on a GPU."""
    if isinstance(index, VectorIndex):
        return _exact_vectors(index)
    if isinstance(index, SubsetIndex) and not index.base.exact:
        return SubsetIndex(_exact_vectors(index.base), index.rows, len(index))
    return index


@dataclass(frozen=True)
class SourceIndexes:
    """The indexes of one state of a catalogue; none of them returns hidden rows."""

    items: VectorSearcher
    """Index over the item vectors."""
    by_popularity: IntArray
    """Rows by descending popularity."""
    new_items: VectorSearcher
    """Index over the vectors of items without events, see `new_vectors`."""
    factors: VectorSearcher | None
    """Index over the co-purchase factors; None where there are none."""
    added: VectorSearcher | None = None
    """Index over `new_vectors` of items added since the bundle, until they are well known."""

    def exact(self) -> SourceIndexes:
        """Return the same indexes with exact search in place of approximate; itself where all are exact."""
        items, new_items = _exact(self.items), _exact(self.new_items)
        factors = None if self.factors is None else _exact(self.factors)
        if items is self.items and new_items is self.new_items and factors is self.factors:
            return self
        return replace(self, items=items, new_items=new_items, factors=factors)

    @classmethod
    def build(
        cls,
        items: VectorSearcher,
        arrays: ItemArrays,
        factors: VectorSearcher | None = None,
        new_items: CatalogueIndex | None = None,
        device: torch.device = CPU,
        room: int = 0,
    ) -> SourceIndexes:
        """Build the missing indexes for a catalogue without hidden rows.

        Args:
            items: index over the item vectors.
            arrays: item-side arrays.
            factors: index over the co-purchase factors; None builds one.
            new_items: index over the vectors of `new_rows`, or on a GPU over `new_vectors` of all items; None
                builds one.
            device: of the indexes that are built.
            room: how many items may be added to them later, on a GPU.

        """
        statistics, factor_vectors = arrays.statistics, arrays.factor_vectors
        if factors is None and factor_vectors.shape[1]:
            factors = build_index(factor_vectors, device=device, room=room)
        popular = popularity_order(popularity(statistics.recent, statistics.count))
        new, vectors = new_rows(statistics.count), new_vectors(arrays)
        if new_items is None:
            if isinstance(factors, DeviceIndex) and vectors is factor_vectors:
                new_items = factors
            else:
                new_items = device_index(vectors, device, room)
        if isinstance(new_items, DeviceIndex):
            # Over the vectors of all items, which is as fast and takes items that become new later.
            shown = np.zeros(len(vectors), dtype=np.bool_)
            shown[new] = True
            return cls(items, popular, new_items.state(len(vectors), shown), factors)
        if new_items is None:
            new_items = VectorIndex.build(vectors[new], IndexConfig())
        return cls(items, popular, SubsetIndex(new_items, new, len(statistics.count)), factors)
