"""Inputs and outputs of feature groups: a batch's arrays, blocks of columns, columns by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from features.data.dataset import BoolArray, FloatArray, IntArray, LongArray
from features.data.histories import HistoryBatch
from features.data.statistics import Neighbours, Statistics


@dataclass(frozen=True)
class ItemArrays:
    """Item-side inputs of the features."""

    statistics: Statistics
    item_vectors: FloatArray  # [items, dim] vectors in the space of the user vectors
    item_units: FloatArray  # [items, dim] the same at unit length
    text_units: FloatArray  # [items, at most 64] text vectors, reduced, unit length
    affinity_units: FloatArray  # [items, dim] affinity vectors; no columns without them
    text_near: Neighbours
    text_near_recent: FloatArray  # [items] mean log recent demand of the ten nearest items by text
    factor_vectors: FloatArray  # [items, factors] co-purchase factors; no columns without them


@dataclass(frozen=True)
class Candidates:
    """Candidates of several queries, padded with -1."""

    rows: IntArray  # [queries, candidates]
    sources: npt.NDArray[np.int16]  # [queries, candidates] source bit masks
    fused: FloatArray  # [queries, candidates] reciprocal rank fusion, the order before the ranking head


@dataclass(frozen=True)
class UserVectors:
    """Vectors of the histories, for sources and features; zero where one is empty."""

    tower: FloatArray  # [queries, dim] in the space of the item vectors
    factors: FloatArray  # [queries, factors] in the space of the co-purchase factors
    affinity: FloatArray  # [queries, dim] in the space of the affinity vectors


@dataclass(frozen=True)
class FeatureInputs:
    """Inputs of a batch's features."""

    batch: HistoryBatch
    """Histories of the queries."""
    rows: IntArray
    """Candidates, each once per query, padded with -1, contiguous, [queries, candidates]."""
    sources: npt.NDArray[np.int16]
    """Their source bit masks, contiguous, [queries, candidates]."""
    arrays: ItemArrays
    users: UserVectors
    best: FloatArray
    """Best score in the catalogue by tower and by factors, contiguous, [2, queries]."""
    click_kinds: BoolArray
    """[kinds] True for kinds that are weaker than a purchase."""


@dataclass(frozen=True)
class FeatureShape:
    """What determines the number of features."""

    sources: tuple[str, ...]
    """Names of the candidate sources, in the order of their bits in a source mask."""
    attributes: int = 0
    """Number of grouping attributes of the catalogue."""


class FeatureColumns:
    """Columns of the feature matrix by the names of the features."""

    def __init__(self, shape: FeatureShape, names: Sequence[str]) -> None:
        """Number the names from 0."""
        self.shape = shape
        self._columns = {name: column for column, name in enumerate(names)}

    def __getitem__(self, name: str) -> int:
        return self._columns[name]

    def of(self, *names: str) -> tuple[int, ...]:
        """Return the columns of several features as a tuple, for a compiled loop."""
        return tuple([self._columns[name] for name in names])

    def array(self, names: Sequence[str]) -> LongArray:
        """Return the columns of any number of features, [names]."""
        return np.array(self.of(*names), dtype=np.int64)


Write: TypeAlias = Callable[[FeatureInputs, FeatureColumns, FloatArray], None]
"""Writes the features of a group to their columns of a matrix [queries, candidates, features] of zeros."""


@dataclass(frozen=True)
class Block:
    """Features of one group in adjacent columns."""

    write: Write
    """The group's function; blocks with the same one are written together."""
    names: Callable[[FeatureShape], Sequence[str]]
    """Their names, in order."""
    label: str = ""
    """What they describe, in words for an explanation; blocks with the same label are explained together,
    blocks without one by the name of their first feature."""


def block(write: Write, *names: str, label: str = "") -> Block:
    """Return a block with fixed names."""
    return Block(write, lambda _: names, label)
