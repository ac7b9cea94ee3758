"""The indexes of a bundle whose items change, where Milvus searches: for every snapshot of its catalogue.

A change is searched in memory from the moment it is applied (`ranking.milvus.pending`), and written to Milvus
in the background (`ranking.milvus.writer`). No index is built or kept in this process.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache

import numpy as np

from conf.engines.milvus import Consistency
from features.data.dataset import BoolArray, FloatArray, IntArray
from features.data.statistics import Neighbours
from ranking.catalogue.live_catalogue import LiveCatalogue, PreparedItemChanges
from ranking.live.arrays import LiveArrays
from ranking.live.events import LiveEvents
from ranking.milvus.collection import Collection
from ranking.milvus.entities import entity
from ranking.milvus.expressions import translate, untranslatable
from ranking.milvus.fields import (
    AFFINITY_VECTOR,
    FACTOR_VECTOR,
    FRESH,
    ITEM_VECTOR,
    TEXT_VECTOR,
    frame_of,
    stored_rows,
    unstorable,
)
from ranking.milvus.pending import Pending, Write
from ranking.milvus.searcher import MilvusIndex
from ranking.milvus.status import EngineStatus
from ranking.milvus.writer import Writer
from ranking.retrieval.added_index import AddedIndex
from ranking.retrieval.searcher import VectorSearcher
from ranking.retrieval.source_indexes import SourceIndexes, new_vectors

LOG = logging.getLogger(__name__)
_SETTLE_SECONDS = 10.0
"""How long a confirmed write may be missing from a search with bounded staleness; Milvus's default is 5."""
_FILTERS = 1024
"""Translated filters that are kept."""
_CONDITIONS = 100
"""Most conditions that are reported as not tested by Milvus."""


class MilvusIndexes:
    """Searches of the arrays by Milvus; written to by the one thread that runs the model."""

    def __init__(
        self,
        collection: Collection,
        arrays: LiveArrays,
        events: LiveEvents,
        lends: BoolArray,
        fresh: IntArray,
    ) -> None:
        """Start the threads that write changes, and connect again after an outage.

        Args:
            collection: of the bundle's version.
            arrays: the bundle's arrays, with new items.
            events: the recorded events, for the well-known items.
            lends: [base rows] items with trained factors.
            fresh: rows of the bundle that the collection marks as new.

        """
        self._collection, self._arrays, self._events = collection, arrays, events
        self._lends = lends
        self._fresh: BoolArray = np.zeros(len(lends), dtype=np.bool_)
        self._fresh[fresh] = True
        self._base_size = len(lends)
        bounded = collection.config.consistency is Consistency.bounded
        self._pending = Pending(_SETTLE_SECONDS if bounded else 0.0)
        self._untested: dict[str, None] = {}
        self._translate: Callable[[str], str] = lru_cache(_FILTERS)(self._translated)
        self._writer = Writer(collection, self._pending)

    def close(self) -> None:
        """End the threads and the connection."""
        self._writer.close()
        self._collection.close()

    def status(self) -> EngineStatus:
        """Return the state of Milvus as this process sees it; any thread may call it."""
        collection, pending = self._collection, self._pending
        return EngineStatus(
            works=collection.up,
            failure="" if collection.up else collection.failure,
            failed_searches=collection.failed_searches,
            timeouts=collection.timeouts,
            pending=len(pending),
            pending_seconds=pending.oldest_seconds(),
            refused=pending.kept,
            untested=(
                *self._untested,
                *(f"{kind}: this Milvus does not take it" for kind in collection.refused_kinds[:_CONDITIONS]),
            ),
        )

    def _translated(self, expression: str) -> str:
        """Return a filter as a Milvus expression; note and log the conditions that Milvus does not test."""
        fields = self._collection.spec.attributes
        for condition in untranslatable(fields, expression):
            if condition not in self._untested and len(self._untested) < _CONDITIONS:
                self._untested[condition] = None
                LOG.warning(
                    "Milvus does not test this condition of a filter, this process does: %s", condition
                )
        return translate(fields, expression)

    def lenders(self, text_vectors: FloatArray, size: int) -> Neighbours | None:
        """Return the items that factors for these texts are imputed from, see `LiveArrays.lenders`."""
        return self._arrays.lenders(text_vectors, size)

    def write_texts(self, rows: IntArray, size: int) -> None:
        """Do nothing: vectors are read from the arrays, and `applied` has them written."""

    def write_factors(self, rows: IntArray, size: int) -> None:
        """Do nothing, as `write_texts`."""

    def applied(self, catalogue: LiveCatalogue, plan: PreparedItemChanges) -> None:
        """Search changed rows in memory, and have their newest state written.

        To be called once the catalogue has the changes, and again once all their vectors are there.

        Args:
            catalogue: the snapshot after the changes.
            plan: the changes.

        """
        spec, arrays = self._collection.spec, self._arrays.view(catalogue.size)
        frame = frame_of([item.values for item in plan.upserts], spec.attributes)
        values = stored_rows(frame, spec.attributes)
        beyond = set(unstorable(frame, spec.attributes))
        rows = catalogue.find([item.item_id for item in plan.upserts])
        vectors = {
            ITEM_VECTOR: arrays.item_vectors,
            TEXT_VECTOR: self._arrays.text_vectors(catalogue.size),
            FACTOR_VECTOR: arrays.factor_vectors,
            AFFINITY_VECTOR: arrays.affinity_units,
        }
        writes = []
        for position, (item, row) in enumerate(zip(plan.upserts, rows, strict=True)):
            assert row is not None, "the snapshot has every item that was added"
            own = {field: vectors[field][row].copy() for field in spec.dims}
            fresh = row >= self._base_size or bool(self._fresh[row])
            made = None if position in beyond else entity(item.item_id, values[position], own, fresh)
            writes.append(Write(item.item_id, row, made, position not in beyond))
        deleted = zip(plan.deletes, catalogue.find(plan.deletes), strict=True)
        writes += [Write(item_id, row, None) for item_id, row in deleted if row is not None]
        self._pending.put(writes)

    def sources(self, catalogue: LiveCatalogue, by_popularity: IntArray) -> SourceIndexes:
        """Return the candidate sources' indexes for a snapshot of the catalogue."""
        return SourceIndexes(
            self.items(catalogue), by_popularity, self.new(catalogue), self.factors(catalogue),
            self.added(catalogue),
        )  # fmt: skip

    def items(self, catalogue: LiveCatalogue) -> VectorSearcher:
        """Return the index over item vectors."""
        return self._index(ITEM_VECTOR, self._arrays.view(catalogue.size).item_vectors, catalogue)

    def texts(self, catalogue: LiveCatalogue, in_process: bool = False) -> VectorSearcher | None:
        """Return the index over text vectors; None where these are the item vectors."""
        if TEXT_VECTOR not in self._collection.spec.dims:
            return None
        vectors = self._arrays.text_vectors(catalogue.size)
        return self._index(TEXT_VECTOR, vectors, catalogue, in_process)

    def neighbours(self, catalogue: LiveCatalogue) -> VectorSearcher:
        """Return the index that text neighbours of changed items are looked up in; never fails."""
        vectors = self._arrays.view(catalogue.size).item_vectors
        return self.texts(catalogue, True) or self._index(ITEM_VECTOR, vectors, catalogue, True)

    def factors(self, catalogue: LiveCatalogue) -> VectorSearcher | None:
        """Return the index over co-purchase factors; None where there are none."""
        if FACTOR_VECTOR not in self._collection.spec.dims:
            return None
        return self._index(FACTOR_VECTOR, self._arrays.view(catalogue.size).factor_vectors, catalogue)

    def new(self, catalogue: LiveCatalogue) -> VectorSearcher:
        """Return the index over new items."""
        hidden = self._events.well_known(catalogue.size)
        if not self._lends.any():  # as in `new_rows`: none where all are new
            hidden[:] = True
        if catalogue.hidden is not None:
            hidden = hidden | catalogue.hidden
        arrays, dims = self._arrays.view(catalogue.size), self._collection.spec.dims
        field = next(f for f in (AFFINITY_VECTOR, FACTOR_VECTOR, ITEM_VECTOR) if f in dims)
        return MilvusIndex(
            self._collection, field, new_vectors(arrays), catalogue.find, self._pending, hidden,
            f"{FRESH} == true", self._translate,
        )  # fmt: skip

    def added(self, catalogue: LiveCatalogue) -> VectorSearcher | None:
        """Return the index over added items that are not well known, in memory; None without any."""
        hidden = self._events.well_known(catalogue.size)
        if catalogue.hidden is not None:
            hidden = hidden | catalogue.hidden
        if hidden[self._base_size :].all():
            return None
        vectors = new_vectors(self._arrays.view(catalogue.size))[self._base_size :]
        return AddedIndex(self._base_size, vectors, hidden[self._base_size :])

    def _index(
        self, field: str, vectors: FloatArray, catalogue: LiveCatalogue, in_process: bool = False
    ) -> MilvusIndex:
        return MilvusIndex(
            self._collection, field, vectors, catalogue.find, self._pending, catalogue.hidden, "",
            self._translate, in_process,
        )  # fmt: skip
