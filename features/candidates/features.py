"""Candidate features: one definition, used to train the ranking head and to serve.

A feature depends on its query and its candidate, never on other candidates, so a score does not change with
the batch. Compiled loops, one for each group, write their columns: few calls, each of which reads every
candidate once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from conf.errors import InputError
from features.candidates import (
    attribute_features,
    item_features,
    neighbour_features,
    own_item_features,
    similarity,
    source_features,
)
from features.candidates.contract import Block, FeatureColumns, FeatureInputs, FeatureShape
from features.candidates.contract import Candidates as Candidates
from features.candidates.contract import ItemArrays as ItemArrays
from features.candidates.contract import UserVectors as UserVectors
from features.candidates.similarity import mean_directions
from features.data.dataset import BoolArray, FloatArray, LongArray
from features.data.histories import HistoryBatch

PROFILE = 5
"""History items whose mean is a user's affinity vector, as in training."""

BLOCKS: Final[tuple[Block, ...]] = (
    similarity.USER_SCORES,
    similarity.CO_PURCHASE,
    similarity.ITEM_NEAR,
    similarity.TEXT_NEAR,
    similarity.AFFINITY,
    neighbour_features.NEIGHBOURS,
    item_features.TEXT_DEMAND,
    own_item_features.OWN_ITEMS,
    neighbour_features.TOGETHER_LONG,
    own_item_features.OWN_CLICKS,
    item_features.ITEMS,
    item_features.PRICE,
    own_item_features.HABITS,
    source_features.PROPOSED_BY,
    attribute_features.SHARES,
    attribute_features.NEWEST,
)
"""All features, in the order of their columns: a new group adds its line. A ranking head trained without it
keeps using its own columns, see `FeatureLayout.selection`."""


@dataclass(frozen=True)
class FeatureLayout:
    """The column of each feature."""

    sources: tuple[str, ...]
    """Names of the candidate sources, in the order of their bits in a source mask."""
    attributes: int = 0
    """Number of grouping attributes of the catalogue."""
    blocks: tuple[Block, ...] = BLOCKS

    @classmethod
    def of_width(cls, sources: tuple[str, ...], width: int) -> FeatureLayout:
        """Return the layout with `width` columns, which determines the number of attributes."""
        return cls(sources, (width - len(cls(sources).names)) // 2)

    @cached_property
    def names(self) -> list[str]:
        """Names of the features, in order."""
        shape = FeatureShape(self.sources, self.attributes)
        return [name for block in self.blocks for name in block.names(shape)]

    @cached_property
    def columns(self) -> FeatureColumns:
        """Column of each feature by its name."""
        return FeatureColumns(FeatureShape(self.sources, self.attributes), self.names)

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Names of the features of each group of an explanation, by its label."""
        shape, groups = FeatureShape(self.sources, self.attributes), dict[str, list[str]]()
        for block in self.blocks:
            if names := list(block.names(shape)):
                groups.setdefault(block.label or names[0], []).extend(names)
        return groups

    def selection(self, names: Sequence[str]) -> LongArray | None:
        """Return the columns of the features that a ranking head was trained on; None if these are all.

        Args:
            names: features, in the order of the ranking head.

        Raises:
            InputError: naming the features that no longer exist.

        """
        if names == self.names:
            return None
        missing = [name for name in names if name not in set(self.names)]
        if missing:
            raise InputError(f"the ranking head needs features that are unknown: {', '.join(missing)}")
        return self.columns.array(names)


def affinity_profiles(batch: HistoryBatch, units: FloatArray) -> FloatArray:
    """Return the normalised mean of the newest items' units, [queries, dim]; zero without history."""
    return mean_directions(batch.items, batch.offsets, PROFILE, units)


def recency_weights(batch: HistoryBatch, scale: float = 1.0) -> FloatArray:
    """Return the weight of each event by the number after it, [total events]; halved after `scale` events."""
    return (1.0 / (1.0 + batch.age() / scale)).astype(np.float32)


def candidate_features(
    layout: FeatureLayout,
    batch: HistoryBatch,
    candidates: Candidates,
    arrays: ItemArrays,
    users: UserVectors,
    best: FloatArray,
    click_kinds: BoolArray,
) -> FloatArray:
    """Compute the features of every candidate.

    Args:
        layout: the columns to compute.
        batch: histories of the queries.
        candidates: their candidates, each once per query.
        arrays: item-side inputs.
        users: vectors of the histories.
        best: best score in the catalogue by tower and by factors, [queries, 2].
        click_kinds: [kinds] True for kinds that are weaker than a purchase.

    Returns:
        float32 [queries, candidates, features] in the order of the layout; 0 at padding.

    """
    rows, sources = np.ascontiguousarray(candidates.rows), np.ascontiguousarray(candidates.sources)
    inputs = FeatureInputs(batch, rows, sources, arrays, users, np.ascontiguousarray(best.T), click_kinds)
    features = np.zeros((*rows.shape, len(layout.names)), dtype=np.float32)
    for write in dict.fromkeys(block.write for block in layout.blocks):
        write(inputs, layout.columns, features)
    return features
