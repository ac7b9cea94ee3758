"""Candidate features: one definition, used to train the ranking head and to serve.

Every feature of a candidate depends on its query and on itself, never on the other candidates beside it, so a
score does not change with the batch it is computed in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.dataset import FloatArray, IntArray, LongArray
from features.demand import demand_names
from features.histories import HistoryBatch, KeyedSums
from features.likeness import likeness
from features.places import Floats, Places
from features.statistics import DAY, MAX_GAP_DAYS, Neighbours, Statistics

SOURCES = (
    "user_vector",
    "item_to_item",
    "text_neighbours",
    "repeat",
    "popular",
    "intent",
    "co_purchase",
    "new_items",
)
"""Candidate sources; bit `i` of a candidate's source mask belongs to `SOURCES[i]`."""

LONG = 100
"""History items whose neighbours the long co-occurrence feature adds up."""
RECENT = 10
"""History items that similarity features look at."""
_CODE_BITS = 32
"""More than the code of an attribute's value takes."""
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


def feature_names(attributes: int) -> list[str]:
    """Names of the features, in order, for a catalogue with this many grouping attributes."""
    return [
        "user_score", "user_score_below_best", "co_purchase_score", "co_purchase_below_best",
        "item_near_max", "item_near_mean", "item_near_last",
        "text_near_max", "text_near_mean", "text_near_last",
        "affinity_score", "affinity_near_max", "affinity_near_mean", "affinity_near_last",
        "together_sum", "together_last", "follow_sum", "follow_last", "text_table_sum", "text_near_recent",
        "own_count", "own_recent", "own_share", "own_days_since", "own_events_since", "own_due",
        "own_month", "own_season", "own_visits", "together_long",
        "own_clicks", "repeat_rate", "gap_days",
        "log_count", *demand_names(),
        "log_price", "price_above_usual",
        "history_length", "history_repeats", "days_since_last",
        *(f"source_{name}" for name in SOURCES),
        *(f"attribute_{i}" for i in range(attributes)),
        *(f"attribute_{i}_last" for i in range(attributes)),
    ]  # fmt: skip


def affinity_profiles(batch: HistoryBatch, units: FloatArray) -> FloatArray:
    """Return the direction of the newest items' mean, [queries, dim] of unit length; zero without history."""
    recent = batch.newest(PROFILE)
    sums = np.zeros((len(batch), units.shape[1]), dtype=np.float32)
    np.add.at(sums, recent.owners(), units[recent.items])
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    profiles: FloatArray = (sums / np.maximum(lengths, 1e-9)).astype(np.float32)
    return profiles


def recency_weights(batch: HistoryBatch, scale: float = 1.0) -> FloatArray:
    """Weight of each event by how many came after it, [total events]; it halves after `scale` events."""
    return (1.0 / (1.0 + batch.age() / scale)).astype(np.float32)


def spread(batch: HistoryBatch, near: Neighbours, items: int, weights: FloatArray) -> KeyedSums:
    """Add up the neighbours of each history's items, keyed by query * items + neighbour."""
    ids = near.ids[batch.items]  # [events, k]
    values = near.weights[batch.items] * weights[:, None]
    keys = batch.owners()[:, None] * items + ids
    real = ids >= 0
    return KeyedSums.of(keys[real], values[real])


def candidate_features(
    batch: HistoryBatch,
    candidates: Candidates,
    arrays: ItemArrays,
    users: UserVectors,
    best: FloatArray,
    click_kinds: npt.NDArray[np.bool_],
) -> FloatArray:
    """Compute the features of every candidate.

    Args:
        batch: histories of the queries.
        candidates: their candidates, each once per query.
        arrays: item-side inputs.
        users: their vectors.
        best: best score in the catalogue by tower and by factors, [queries, 2].
        click_kinds: [kinds] True for kinds that are weaker than a purchase.

    Returns:
        float32 [queries, candidates, features] in the order of `feature_names`; 0 at padding. In memory the
        values of one feature lie together, as they are made here and read by the ranking head.

    """
    statistics, rows = arrays.statistics, np.maximum(candidates.rows, 0)
    places = Places(candidates.rows, len(statistics.count))
    recent = batch.newest(RECENT)
    tower = likeness(candidates.rows, arrays.item_vectors, users.tower, recent, unit=False)
    text = likeness(candidates.rows, arrays.text_units, history=recent)
    affinity = likeness(candidates.rows, arrays.affinity_units, users.affinity, recent)
    factors = likeness(candidates.rows, arrays.factor_vectors, users.factors)
    gap_days, price = statistics.gap_days.take(rows), statistics.log_price.take(rows)
    length = np.diff(batch.offsets).astype(np.float32)[:, None]
    usual_price = _per_query(batch, statistics.log_price[batch.items]) / np.maximum(length, 1)
    near, long = _neighbours(batch, places, arrays)
    own, clicks = _own(batch, places, gap_days, click_kinds)
    columns = [
        tower.product, tower.product - best[:, :1], factors.product, factors.product - best[:, 1:],
        *tower.cosines, *text.cosines, affinity.product, *affinity.cosines,
        *near, arrays.text_near_recent.take(rows), *own, long,
        np.log1p(clicks), statistics.repeat_rate.take(rows), np.log1p(gap_days),
        np.log1p(statistics.count.take(rows)),
        *np.moveaxis(statistics.demand.features(rows, batch.now), 2, 0),
        price, np.where(length > 0, price - usual_price, 0.0),
        np.log1p(length), *_habits(batch, len(statistics.count)),
        *((candidates.sources >> bit) & 1 for bit in range(len(SOURCES))),
        *_affinities(batch, rows, statistics),
    ]  # fmt: skip
    stacked = np.empty((len(columns), *rows.shape), dtype=np.float32)
    for place, column in enumerate(columns):
        stacked[place] = column
    np.copyto(stacked, 0.0, where=candidates.rows < 0)
    return np.moveaxis(stacked, 0, 2)


def _per_query(batch: HistoryBatch, values: FloatArray) -> Floats:
    """Add up the values of each history's events, [queries, 1]."""
    return np.bincount(batch.owners(), values, minlength=len(batch)).astype(np.float64)[:, None]


def _neighbours(
    batch: HistoryBatch, places: Places, arrays: ItemArrays
) -> tuple[tuple[Floats, Floats, Floats, Floats, Floats], Floats]:
    """Add up, per candidate, how near it is to the history's events in the tables of neighbours.

    Returns:
        Found together, with the newest event; following, the newest event; alike by text; and together over a
        longer history. Each [queries, candidates].

    """
    together, follow, alike = arrays.statistics.together, arrays.statistics.follow, arrays.text_near

    def added(near: Neighbours, found: LongArray, events: HistoryBatch, weights: FloatArray) -> Floats:
        return places.sums(found, near.weights.take(events.items, axis=0) * weights[:, None])

    long, recent = batch.newest(LONG), batch.newest(2 * RECENT)
    weights, last = recency_weights(recent), (recent.age() == 0).astype(np.float32)
    in_long = places.find(together.ids.take(long.items, axis=0), long.offsets)
    in_recent = in_long[long.age() < 2 * RECENT]
    after = places.find(follow.ids.take(recent.items, axis=0), recent.offsets)
    like = places.find(alike.ids.take(recent.items, axis=0), recent.offsets)
    return (
        added(together, in_recent, recent, weights), added(together, in_recent, recent, last),
        added(follow, after, recent, weights), added(follow, after, recent, last),
        added(alike, like, recent, weights),
    ), added(together, in_long, long, recency_weights(long, 20.0))  # fmt: skip


def _own(
    batch: HistoryBatch, places: Places, gap_days: FloatArray, click_kinds: npt.NDArray[np.bool_]
) -> tuple[list[Floats], Floats]:
    """Describe what the history holds of each candidate itself.

    Args:
        batch: histories of the queries.
        places: of the candidates.
        gap_days: their usual days between purchases, [queries, candidates].
        click_kinds: [kinds] True for kinds that are weaker than a purchase.

    Returns:
        The features from `own_count` to `own_visits`, and the number of clicks; each [queries, candidates].

    """
    owners, ages = batch.owners(), batch.age()
    found = places.find(batch.items, batch.offsets)
    count = places.sums(found)
    days = np.maximum(batch.now[owners] - batch.times, 0) / DAY
    # Visits are distinct times: a basket counts once however many lines it has.
    first_line = np.ones(len(owners), dtype=np.float32)
    first_line[1:] = (owners[1:] != owners[:-1]) | (batch.times[1:] != batch.times[:-1])
    newest = places.largest(found, batch.times, default=-1)
    oldest = -places.largest(found, -batch.times, default=1)
    fewest_after = -places.largest(found, -ages, default=-100_000)
    clicked = click_kinds[batch.kinds] if len(click_kinds) else np.zeros(len(batch.kinds), dtype=bool)
    owned = count > 0
    since = np.where(owned, np.maximum(batch.now[:, None] - newest, 0) / DAY, MAX_GAP_DAYS)
    since = np.minimum(since, MAX_GAP_DAYS)
    usual = np.where(count > 1, (newest - oldest) / DAY / np.maximum(count - 1, 1), gap_days)
    due = np.where(owned, np.log1p(since) - np.log1p(np.maximum(usual, 0.0)), 0.0)
    length = np.maximum(np.diff(batch.offsets), 1)[:, None]
    return [
        np.log1p(count), np.log1p(places.sums(found, 1.0 / (1.0 + ages / 20.0))), count / length,
        np.log1p(since), np.log1p(fewest_after), due,
        np.log1p(places.sums(found, 0.5 ** (days / 30.0))),
        np.log1p(places.sums(found, 0.5 ** (days / 120.0))),
        np.minimum(count / np.maximum(_per_query(batch, first_line), 1), 1.0),
    ], places.sums(found[clicked])  # fmt: skip


def _habits(batch: HistoryBatch, items: int) -> tuple[Floats, Floats]:
    """Return the share of a history that repeats, and the log of days since its end, [queries, 1]."""
    owners, length = batch.owners(), np.diff(batch.offsets)[:, None]
    index = np.arange(len(batch))[:, None]
    distinct = np.bincount(np.unique(owners * items + batch.items) // items, minlength=len(batch))[:, None]
    latest = KeyedSums.largest(owners, batch.times).get(index, default=0)
    quiet = np.where(length > 0, np.clip(batch.now[:, None] - latest, 0, None) / DAY, MAX_GAP_DAYS)
    return 1.0 - distinct / np.maximum(length, 1), np.log1p(np.minimum(quiet, MAX_GAP_DAYS))


def _affinities(batch: HistoryBatch, rows: IntArray, statistics: Statistics) -> list[FloatArray]:
    """Return, per attribute, the share of the history with the candidate's value, then of its newest."""
    codes = statistics.attributes
    weights = 1.0 / (1.0 + batch.age() / 20.0)
    owners = batch.owners()
    index = np.arange(len(batch), dtype=np.int64)[:, None]
    total = KeyedSums.of(owners, weights).get(index)
    shares, lasts = [], []
    last = batch.newest(1)
    for column in range(codes.shape[1]):
        theirs = codes[:, column][rows]
        keys = (index << _CODE_BITS) + theirs
        own, newest = codes[batch.items, column], codes[last.items, column]
        weight = KeyedSums.of((owners << _CODE_BITS) + own, weights).get(keys) / np.maximum(total, 1e-9)
        shares.append(np.where(theirs >= 0, weight, 0.0))
        same = KeyedSums.of((last.owners() << _CODE_BITS) + newest).get(keys)
        lasts.append(np.where(theirs >= 0, same, 0.0))
    return [np.asarray(a, dtype=np.float32) for a in (*shares, *lasts)]
