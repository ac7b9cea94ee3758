"""Candidate features: one definition, used to train the ranking head and to serve.

Every feature of a candidate depends on its query and on itself, never on the other candidates beside it, so a
score does not change with the batch it is computed in. Compiled loops, one for each kind of knowledge, write
their columns: few calls, each of which reads every candidate once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from features.candidates.history_features import write_neighbours, write_own_items, write_shares
from features.candidates.item_features import write_item_features
from features.candidates.similarity import directions, write_similarities
from features.data.dataset import FloatArray, IntArray
from features.data.demand import demand_names
from features.data.histories import HistoryBatch
from features.data.statistics import Neighbours, Statistics

RECENT = 10
"""History items that similarity features look at."""
PROFILE = 5
"""History items whose mean is a user's affinity vector, as in training."""


@dataclass(frozen=True)
class ItemArrays:
    """What the features read of every item."""

    statistics: Statistics
    item_vectors: FloatArray  # [items, dim] vectors that user vectors are compared with
    item_units: FloatArray  # [items, dim] the same at unit length
    text_units: FloatArray  # [items, sketch] text vectors, reduced, unit length
    affinity_units: FloatArray  # [items, dim] where items that go together lie close; no columns without it
    text_near: Neighbours
    text_near_recent: FloatArray  # [items] mean log recent demand of the ten nearest texts
    factor_vectors: FloatArray  # [items, factors] co-purchase factors; no columns where there are none


@dataclass(frozen=True)
class Candidates:
    """Candidates of several queries, padded with -1."""

    rows: IntArray  # [queries, candidates]
    sources: npt.NDArray[np.int16]  # [queries, candidates] source bit masks
    fused: (
        FloatArray  # [queries, candidates] reciprocal-rank fusion of the sources, the order before the ranker
    )


@dataclass(frozen=True)
class UserVectors:
    """What a history looks like to the sources that search by vector; zero where it is empty."""

    tower: FloatArray  # [queries, dim] in the space of the item vectors
    factors: FloatArray  # [queries, factors] in the space of the co-purchase factors
    affinity: FloatArray  # [queries, dim] in the space of the affinity vectors


@dataclass(frozen=True)
class FeatureLayout:
    """Which feature stands in which column."""

    sources: tuple[str, ...]
    """Names of the candidate sources, in the order of their bits in a source mask."""
    attributes: int = 0
    """How many grouping attributes the catalogue has."""

    @classmethod
    def of_width(cls, sources: tuple[str, ...], width: int) -> FeatureLayout:
        """Return the layout of features with so many columns, which the number of attributes decides."""
        return cls(sources, (width - len(cls(sources).names)) // 2)

    @cached_property
    def names(self) -> list[str]:
        """Names of the features, in order."""
        return [
            "user_score", "user_score_below_best", "co_purchase_score", "co_purchase_below_best",
            "item_near_max", "item_near_mean", "item_near_last",
            "text_near_max", "text_near_mean", "text_near_last",
            "affinity_score", "affinity_near_max", "affinity_near_mean", "affinity_near_last",
            "together_sum", "together_last", "follow_sum", "follow_last", "text_table_sum",
            "text_near_recent",
            "own_count", "own_recent", "own_share", "own_days_since", "own_events_since", "own_due",
            "own_month", "own_season", "own_visits", "together_long",
            "own_clicks", "repeat_rate", "gap_days",
            "log_count", *demand_names(),
            "log_price", "price_above_usual",
            "history_length", "history_repeats", "days_since_last",
            *(f"source_{name}" for name in self.sources),
            *(f"attribute_{i}" for i in range(self.attributes)),
            *(f"attribute_{i}_last" for i in range(self.attributes)),
        ]  # fmt: skip

    @cached_property
    def columns(self) -> dict[str, int]:
        """Column of each feature by its name."""
        return {name: column for column, name in enumerate(self.names)}


def affinity_profiles(batch: HistoryBatch, units: FloatArray) -> FloatArray:
    """Return the direction of the newest items' mean, [queries, dim] of unit length; zero without history."""
    return directions(batch.items, batch.offsets, PROFILE, units)


def recency_weights(batch: HistoryBatch, scale: float = 1.0) -> FloatArray:
    """Weight of each event by how many came after it, [total events]; it halves after `scale` events."""
    return (1.0 / (1.0 + batch.age() / scale)).astype(np.float32)


def candidate_features(
    layout: FeatureLayout,
    batch: HistoryBatch,
    candidates: Candidates,
    arrays: ItemArrays,
    users: UserVectors,
    best: FloatArray,
    click_kinds: npt.NDArray[np.bool_],
) -> FloatArray:
    """Compute the features of every candidate.

    Args:
        layout: which columns to make.
        batch: histories of the queries.
        candidates: their candidates, each once per query.
        arrays: item-side inputs.
        users: their vectors.
        best: best score in the catalogue by tower and by factors, [queries, 2].
        click_kinds: [kinds] True for kinds that are weaker than a purchase.

    Returns:
        float32 [queries, candidates, features] in the order of the layout; 0 at padding.

    """
    statistics, items, offsets = arrays.statistics, batch.items, batch.offsets
    rows, sources = np.ascontiguousarray(candidates.rows), np.ascontiguousarray(candidates.sources)
    columns = layout.columns
    features = np.zeros((*rows.shape, len(layout.names)), dtype=np.float32)
    most = np.ascontiguousarray(best.T)

    def compare(vectors: FloatArray, users: FloatArray, best: FloatArray, *names: str | None) -> None:
        product, below, cosines = (-1 if name is None else columns[name] for name in names)
        unit, to = vectors is not arrays.item_vectors, (product, below, cosines)
        write_similarities(rows, vectors, users, items, offsets, RECENT, unit, best, to, features)

    compare(arrays.item_vectors, users.tower, most[0], "user_score", "user_score_below_best", "item_near_max")
    compare(arrays.text_units, users.tower, most[0], None, None, "text_near_max")
    compare(arrays.affinity_units, users.affinity, most[0], "affinity_score", None, "affinity_near_max")
    compare(
        arrays.factor_vectors, users.factors, most[1], "co_purchase_score", "co_purchase_below_best", None
    )
    together, follow, alike = statistics.together, statistics.follow, arrays.text_near
    write_neighbours(
        rows, items, offsets, together.ids, together.weights, follow.ids, follow.weights, alike.ids,
        alike.weights, columns["together_sum"], columns["together_long"], features,
    )  # fmt: skip
    write_own_items(
        rows, items, batch.own_kinds(), batch.times, offsets, batch.now, click_kinds, statistics.gap_days,
        columns["own_count"], columns["own_clicks"], columns["history_length"], features,
    )  # fmt: skip
    demand, known = statistics.demand.table(rows, batch.now)
    write_item_features(
        rows, sources, items, offsets, arrays.text_near_recent, statistics.repeat_rate,
        statistics.gap_days, statistics.count, statistics.log_price, demand, known,
        columns["text_near_recent"], columns["repeat_rate"], columns["source_user_vector"],
        len(layout.sources), features,
    )  # fmt: skip
    if layout.attributes:
        write_shares(rows, items, offsets, statistics.attributes, columns["attribute_0"], features)
    return features
