"""The indexes of a bundle whose items change, for every snapshot of its catalogue.

A FAISS index is immutable, and later vectors are searched beside it (`ranking.live.index`). An index on a
GPU is updated in place: a snapshot is a number of rows, and a mask of those that may be returned.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from encoders.factors.affinity import Affinity
from features.data.dataset import BoolArray, FloatArray, IntArray
from features.data.statistics import Neighbours
from ranking.assembly import nearest_lenders
from ranking.catalogue.live_catalogue import LiveCatalogue, PreparedItemChanges
from ranking.live.arrays import LiveArrays
from ranking.live.events import LiveEvents
from ranking.live.index import LiveIndex
from ranking.milvus.status import EngineStatus
from ranking.recommender import Recommender
from ranking.retrieval.added_index import AddedIndex
from ranking.retrieval.device_index import DeviceIndex, DeviceState
from ranking.retrieval.faiss_index import VectorIndex
from ranking.retrieval.index_choice import CatalogueIndex
from ranking.retrieval.searcher import VectorSearcher
from ranking.retrieval.source_indexes import SourceIndexes, new_vectors
from ranking.retrieval.subset_index import SubsetIndex


class LiveIndexes:
    """Updates the indexes with the arrays; for the one thread that runs the model."""

    def __init__(
        self,
        recommender: Recommender,
        lender_index: CatalogueIndex | None,
        arrays: LiveArrays,
        events: LiveEvents,
        affinity: Affinity | None,
        lends: BoolArray,
    ) -> None:
        """Take over the indexes of a bundle.

        Args:
            recommender: of the bundle, as loaded.
            lender_index: over its affinity vectors, if there is one.
            arrays: the bundle's arrays, with new items.
            events: the recorded events, for the well-known items.
            affinity: the model of affinity vectors.
            lends: [base rows] items with trained factors.

        Raises:
            TypeError: the bundle is served already.

        """
        if not isinstance(recommender.index, CatalogueIndex):
            raise TypeError("the bundle is served already")
        self._arrays, self._events = arrays, events
        self._affinity, self._lends = affinity, lends
        self._base_size = len(lends)
        self._index = recommender.index
        self._text_index = recommender.text_index
        self._factor_index = recommender.indexes.factors
        self._new_index = recommender.indexes.new_items
        self._lender_index = lender_index
        self._outdated = np.zeros(self._base_size, dtype=np.bool_)
        """[base rows] rows whose vectors have changed."""
        self._shown: tuple[BoolArray, BoolArray] | None = None
        """Cache: hidden rows of a snapshot, and the visible ones."""
        # Exact searches read vectors from the shared memory, so that the loaded arrays can be freed.
        base = arrays.view(self._base_size)
        self._index.vectors = base.item_vectors
        if isinstance(self._text_index, CatalogueIndex) and self._text_index is not self._index:
            self._text_index.vectors = arrays.text_vectors(self._base_size)
        if isinstance(self._factor_index, CatalogueIndex):
            self._factor_index.vectors = base.factor_vectors
        if isinstance(self._new_index, DeviceState):
            self._new_index.index.vectors = new_vectors(base)
        if self._lender_index is not None:
            self._lender_index.vectors = base.affinity_units
        self._moved: IntArray = np.zeros(0, dtype=np.int32)
        """Rows of the bundle whose vectors have changed; then their vectors, copied once per change."""
        self._moved_vectors = base.item_vectors[:0], arrays.text_vectors(0)
        self._moved_factors = base.factor_vectors[:0]
        self._moved_new = new_vectors(base)[:0]

    def lenders(self, text_vectors: FloatArray, size: int) -> Neighbours | None:
        """Return the items that factors for these texts are imputed from, see `LiveArrays.lenders`."""
        if self._lender_index is None or self._affinity is None:
            return self._arrays.lenders(text_vectors, size)
        return nearest_lenders(self._lender_index, self._affinity.units(text_vectors), self._lends)

    def write_texts(self, rows: IntArray, size: int) -> None:
        """Update the indexes by the vectors of rows with new texts, from the arrays."""
        arrays, texts = self._arrays.view(size), self._arrays.text_vectors(size)
        new = new_vectors(arrays)
        _put(
            rows,
            (self._index, arrays.item_vectors),
            (self._text_index, texts),
            (None if new is arrays.factor_vectors else self._new_index, new),  # factors are imputed later
            (self._lender_index, arrays.affinity_units),
        )
        moved = rows[rows < self._base_size]
        if len(moved):
            self._outdated[moved] = True
            self._moved = np.flatnonzero(self._outdated).astype(np.int32)
            self._moved_vectors = arrays.item_vectors[self._moved], texts[self._moved]

    def write_factors(self, rows: IntArray, size: int) -> None:
        """Update the indexes by the imputed factors of rows, from the arrays."""
        arrays = self._arrays.view(size)
        factors, new = arrays.factor_vectors, new_vectors(arrays)
        _put(rows, (self._factor_index, factors), (self._new_index if new is factors else None, new))
        self._moved_factors = factors[self._moved]
        self._moved_new = new[self._moved]

    def sources(self, catalogue: LiveCatalogue, by_popularity: IntArray) -> SourceIndexes:
        """Return the candidate sources' indexes for a snapshot of the catalogue."""
        return SourceIndexes(
            self.items(catalogue), by_popularity, self.new(catalogue), self.factors(catalogue),
            self.added(catalogue),
        )  # fmt: skip

    def status(self) -> EngineStatus | None:
        """Return None: no other program searches."""
        return None

    def close(self) -> None:
        """Do nothing: there are no threads."""

    def applied(self, catalogue: LiveCatalogue, plan: PreparedItemChanges) -> None:
        """Do nothing: attributes are no part of these indexes, and masks leave out what is deleted."""

    def neighbours(self, catalogue: LiveCatalogue) -> VectorSearcher:
        """Return the index that text neighbours of changed items are looked up in."""
        return self.texts(catalogue) or self.items(catalogue)

    def items(self, catalogue: LiveCatalogue) -> VectorSearcher:
        """Return the index over item vectors."""
        vectors = self._arrays.view(catalogue.size).item_vectors
        return self._live(self._index, self._moved_vectors[0], vectors, catalogue)

    def texts(self, catalogue: LiveCatalogue) -> VectorSearcher | None:
        """Return the index over text vectors; None where these are the item vectors."""
        if self._text_index is self._index or not isinstance(self._text_index, CatalogueIndex):
            return None
        vectors = self._arrays.text_vectors(catalogue.size)
        return self._live(self._text_index, self._moved_vectors[1], vectors, catalogue)

    def factors(self, catalogue: LiveCatalogue) -> VectorSearcher | None:
        """Return the index over co-purchase factors; None where there are none."""
        if not isinstance(self._factor_index, CatalogueIndex):
            return None
        vectors = self._arrays.view(catalogue.size).factor_vectors
        return self._live(self._factor_index, self._moved_factors, vectors, catalogue)

    def new(self, catalogue: LiveCatalogue) -> VectorSearcher:
        """Return the index over new items."""
        known = self._events.well_known(catalogue.size)
        if not self._lends.any():  # as in `new_rows`: none where all are new
            known[:] = True
        if isinstance(self._new_index, DeviceState):
            hidden = known if catalogue.hidden is None else known | catalogue.hidden
            return self._new_index.index.state(catalogue.size, ~hidden)
        assert isinstance(self._new_index, SubsetIndex)
        vectors = new_vectors(self._arrays.view(catalogue.size))
        index = self._beside(self._new_index, self._moved_new, vectors, catalogue)
        outdated = index.outdated | known[: self._base_size]
        return replace(
            index,
            outdated=outdated,
            hidden_count=int(np.count_nonzero(outdated)),
            later_hidden=index.later_hidden | known[index.later_rows],
        )

    def added(self, catalogue: LiveCatalogue) -> VectorSearcher | None:
        """Return the index over added items that are not well known; None without any."""
        hidden = self._events.well_known(catalogue.size)
        if catalogue.hidden is not None:
            hidden = hidden | catalogue.hidden
        if hidden[self._base_size :].all():
            return None
        if isinstance(self._new_index, DeviceState):
            shown = ~hidden
            shown[: self._base_size] = False
            return self._new_index.index.state(catalogue.size, shown)
        vectors = new_vectors(self._arrays.view(catalogue.size))[self._base_size :]
        return AddedIndex(self._base_size, vectors, hidden[self._base_size :])

    def _live(
        self, base: CatalogueIndex, moved: FloatArray, vectors: FloatArray, catalogue: LiveCatalogue
    ) -> VectorSearcher:
        if isinstance(base, DeviceIndex):
            return base.state(catalogue.size, self._visible(catalogue))
        return self._beside(base, moved, vectors, catalogue)

    def _visible(self, catalogue: LiveCatalogue) -> BoolArray | None:
        """Return the mask of visible rows, one array for all indexes, so that it is copied to a GPU once."""
        if catalogue.hidden is None:
            return None
        if self._shown is None or self._shown[0] is not catalogue.hidden:
            self._shown = catalogue.hidden, ~catalogue.hidden
        return self._shown[1]

    def _beside(
        self,
        base: VectorIndex | SubsetIndex,
        moved: FloatArray,
        vectors: FloatArray,
        catalogue: LiveCatalogue,
    ) -> LiveIndex:
        hidden: BoolArray = np.zeros(len(vectors), dtype=np.bool_)
        if catalogue.hidden is not None:
            hidden = catalogue.hidden
        added = np.arange(self._base_size, len(vectors), dtype=np.int32)
        later = np.concatenate([self._moved, added])
        outdated = self._outdated | hidden[: self._base_size]
        return LiveIndex(
            base=base,
            outdated=outdated,
            hidden_count=int(np.count_nonzero(outdated)),  # `sum` takes thirty times as long
            later_rows=later,
            later_vectors=(moved, vectors[self._base_size :]),
            later_hidden=hidden[later],
        )


def _put(rows: IntArray, *targets: tuple[VectorSearcher | None, FloatArray]) -> None:
    """Write the vectors [items, dim] of rows to those of the indexes that are on a GPU, once each."""
    done: list[DeviceIndex] = []
    for index, vectors in targets:
        device = index.index if isinstance(index, DeviceState) else index
        if isinstance(device, DeviceIndex) and not any(device is other for other in done):
            device.put(rows, vectors[rows])
            done.append(device)
