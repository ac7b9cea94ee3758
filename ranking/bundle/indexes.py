"""The indexes of a bundle: written for a CPU, loaded for any device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from conf.schema import IndexConfig
from features.candidates.features import ItemArrays
from features.data.dataset import FloatArray
from ranking.recommender import Recommender
from ranking.retrieval.device_index import DeviceIndex
from ranking.retrieval.faiss_index import VectorIndex, exact_by_default
from ranking.retrieval.index_choice import CatalogueIndex, device_index
from ranking.retrieval.source_indexes import new_rows, new_vectors
from ranking.retrieval.subset_index import SubsetIndex

INDEX = "index.faiss"
TEXT_INDEX = "text_index.faiss"
FACTOR_INDEX = "factor_index.faiss"
NEW_INDEX = "new_index.faiss"
LENDER_INDEX = "lender_index.faiss"
"""These four only if approximate: exact ones are faster to build than to read."""


@dataclass(frozen=True)
class SecondaryIndexes:
    """The indexes beside that over item vectors; None where there is none, or building one is fast."""

    text: CatalogueIndex | None
    """Over the text vectors."""
    factor: CatalogueIndex | None
    """Over the co-purchase factors."""
    new: CatalogueIndex | None
    """See `ranking.retrieval.source_indexes.SourceIndexes.build`."""
    lender: CatalogueIndex | None
    """Over the affinity vectors."""


def index_config(info: dict[str, Any]) -> IndexConfig:
    """Return the settings in a manifest, without `gpu` of earlier releases."""
    return IndexConfig(**{name: value for name, value in info.items() if name != "gpu"})


def write_indexes(folder: Path, recommender: Recommender) -> None:
    """Write the indexes of a recommender whose catalogue does not change.

    Raises:
        TypeError: its catalogue changes.

    """
    index, indexes, arrays = recommender.index, recommender.indexes, recommender.arrays
    if not isinstance(index, CatalogueIndex):
        raise TypeError("only an index over the whole catalogue can be published")
    _for_cpu(index, index.vectors).save(folder / INDEX)
    if recommender.text_index is not index:
        _write(folder / TEXT_INDEX, recommender.text_index, recommender.text_vectors)
    _write(folder / FACTOR_INDEX, indexes.factors, arrays.factor_vectors)
    if isinstance(indexes.new_items, SubsetIndex):
        _write(folder / NEW_INDEX, indexes.new_items.base, indexes.new_items.base.vectors)
    else:
        _write(folder / NEW_INDEX, None, new_vectors(arrays)[new_rows(arrays.statistics.count)])
    if recommender.affinity is not None and recommender.factors is not None:
        _write(folder / LENDER_INDEX, None, arrays.affinity_units)


def _write(path: Path, index: object, vectors: FloatArray) -> None:
    if not exact_by_default(*vectors.shape):
        _for_cpu(index, vectors).save(path)


def _for_cpu(index: object, vectors: FloatArray) -> VectorIndex:
    """Return the index if it is for a CPU, else a new one over the same vectors."""
    return index if isinstance(index, VectorIndex) else VectorIndex.build(vectors, IndexConfig())


def read_indexes(
    folder: Path,
    arrays: ItemArrays,
    text_vectors: FloatArray | None,
    lends: bool,
    device: torch.device,
    room: int,
) -> SecondaryIndexes:
    """Return the indexes beside that over item vectors.

    Args:
        folder: of the version.
        arrays: its item-side arrays.
        text_vectors: its unit text vectors; None where they are the item vectors.
        lends: whether factors of later items are imputed by affinity vectors.
        device: where to search.
        room: how many items may be added on a GPU.

    """

    def read(name: str, vectors: FloatArray) -> CatalogueIndex | None:
        found = device_index(vectors, device, room) if vectors.shape[1] else None
        if found is None and (folder / name).is_file():
            return VectorIndex.load(folder / name, vectors, IndexConfig())
        return found

    text = None if text_vectors is None else read(TEXT_INDEX, text_vectors)
    factor = read(FACTOR_INDEX, arrays.factor_vectors)
    vectors = new_vectors(arrays)
    if vectors is arrays.factor_vectors and isinstance(factor, DeviceIndex):
        new: CatalogueIndex | None = factor
    else:
        new = device_index(vectors, device, room)
    if new is None and (folder / NEW_INDEX).is_file():
        new = VectorIndex.load(folder / NEW_INDEX, vectors[new_rows(arrays.statistics.count)], IndexConfig())
    lender: CatalogueIndex | None = None
    if lends and vectors is arrays.affinity_units and isinstance(new, DeviceIndex):
        lender = new
    elif lends:
        lender = read(LENDER_INDEX, arrays.affinity_units)
    return SecondaryIndexes(text, factor, new, lender)
