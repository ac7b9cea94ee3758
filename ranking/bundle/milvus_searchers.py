"""The searchers of a version whose vectors are in Milvus: nothing is built, and no index file is read."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from conf.engines.milvus import RetrievalConfig
from features.candidates.features import ItemArrays
from features.data.dataset import BoolArray, Catalogue, FloatArray
from ranking.milvus.collection import Collection, CollectionSpec
from ranking.milvus.fields import (
    AFFINITY_VECTOR,
    FACTOR_VECTOR,
    FRESH,
    ITEM_VECTOR,
    TEXT_VECTOR,
    attribute_fields,
)
from ranking.milvus.naming import collection_name
from ranking.milvus.searcher import MilvusIndex
from ranking.retrieval.source_indexes import (
    SourceIndexes,
    new_rows,
    new_vectors,
    popularity,
    popularity_order,
)


class MilvusSearchers(NamedTuple):
    """What a Recommender searches with."""

    collection: Collection
    """Not connected yet."""
    text: MilvusIndex | None
    """Over the text vectors; None where these are the item vectors."""
    sources: SourceIndexes


def milvus_searchers(
    config: RetrievalConfig,
    version: str,
    catalogue: Catalogue,
    arrays: ItemArrays,
    text_vectors: FloatArray | None,
) -> MilvusSearchers:
    """Return the searchers of a version.

    Args:
        config: which Milvus.
        version: name of the version.
        catalogue: its items.
        arrays: its item-side arrays.
        text_vectors: its unit text vectors; None where they are the item vectors.

    """
    vectors = {
        ITEM_VECTOR: arrays.item_vectors,
        TEXT_VECTOR: text_vectors,
        FACTOR_VECTOR: arrays.factor_vectors,
        AFFINITY_VECTOR: arrays.affinity_units,
    }
    dims = {field: found.shape[1] for field, found in vectors.items() if found is not None and found.shape[1]}
    spec = CollectionSpec(
        collection_name(config, version), dims, attribute_fields(catalogue.frame), len(catalogue)
    )
    collection = Collection(config, spec)

    def index(field: str, hidden: BoolArray | None = None, only: str = "") -> MilvusIndex | None:
        found = vectors[field]
        if found is None or field not in dims:
            return None
        return MilvusIndex(collection, field, found, catalogue.find, hidden=hidden, only=only)

    statistics = arrays.statistics
    known: BoolArray = np.ones(len(catalogue), dtype=np.bool_)
    known[new_rows(statistics.count)] = False
    new_field = next(f for f in (AFFINITY_VECTOR, FACTOR_VECTOR, ITEM_VECTOR) if f in dims)
    assert vectors[new_field] is new_vectors(arrays), "collection and searches differ in what finds new items"
    items, new = index(ITEM_VECTOR), index(new_field, known, f"{FRESH} == true")
    assert items is not None
    assert new is not None
    order = popularity_order(popularity(statistics.recent, statistics.count))
    return MilvusSearchers(
        collection, index(TEXT_VECTOR), SourceIndexes(items, order, new, index(FACTOR_VECTOR))
    )
