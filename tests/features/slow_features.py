"""The candidate features made the simple way: sums by sorted keys over the whole batch, one after the other.

What `features.candidates.features` makes by other means has to agree with this.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.candidates.features import Candidates, ItemArrays, UserVectors, recency_weights
from features.candidates.neighbour_features import LONG, SHORT
from features.candidates.similarity import RECENT
from features.data.dataset import FloatArray, IntArray
from features.data.histories import HistoryBatch, KeyedSums
from features.data.statistics import DAY, MAX_GAP_DAYS, Neighbours, Statistics
from ranking.sources import SOURCES
from tests.synthetic import described


def spread(batch: HistoryBatch, near: Neighbours, items: int, weights: FloatArray) -> KeyedSums:
    """Add up the neighbours of each history's items, keyed by query * items + neighbour."""
    ids = near.ids[batch.items]  # [events, k]
    values = near.weights[batch.items] * weights[:, None]
    keys = batch.owners()[:, None] * items + ids
    real = ids >= 0
    return KeyedSums.of(keys[real], values[real])


def _similarity(
    batch: HistoryBatch, rows: IntArray, vectors: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return largest, mean and newest cosine to the recent history, each [queries, candidates]."""
    queries = len(batch)
    recent = batch.newest(RECENT)
    sizes = np.diff(recent.offsets)
    width = max(int(sizes.max(initial=0)), 1)
    filled = np.arange(width) >= (width - sizes)[:, None]  # right-aligned
    history = np.zeros((queries, width, vectors.shape[1]), dtype=np.float32)
    history[filled] = vectors[recent.items]
    cosines = vectors[rows] @ history.transpose(0, 2, 1)  # [queries, candidates, width]
    hidden = ~filled[:, None, :]
    largest = np.where(hidden, -1.0, cosines).max(axis=2)
    largest[sizes == 0] = 0.0
    mean = np.where(hidden, 0.0, cosines).sum(axis=2) / np.maximum(sizes, 1)[:, None]
    return largest.astype(np.float32), mean.astype(np.float32), cosines[:, :, -1]


def _products(vectors: FloatArray, rows: IntArray, users: FloatArray) -> FloatArray:
    """Return the inner product of each candidate's vector with its query's, [queries, candidates]."""
    # Not @: BLAS rounds a row by its place among the others, and copies of an item would not tie.
    scores: FloatArray = np.einsum("qcd,qd->qc", vectors[rows], users)
    return scores


def slow_features(
    batch: HistoryBatch,
    candidates: Candidates,
    arrays: ItemArrays,
    users: UserVectors,
    best: FloatArray,
    click_kinds: npt.NDArray[np.bool_],
) -> FloatArray:
    """As `features.candidates.features.candidate_features`."""
    statistics = arrays.statistics
    items = len(statistics.count)
    rows = np.maximum(candidates.rows, 0)
    index = np.arange(len(batch), dtype=np.int64)[:, None]
    keys = index * items + rows
    owners = batch.owners()
    own_keys = owners * items + batch.items
    ages = batch.age()
    length = np.diff(batch.offsets).astype(np.float32)[:, None]

    recent = batch.newest(SHORT)
    weights = recency_weights(recent)
    last = batch.newest(1)
    ones = np.ones(len(last.items), dtype=np.float32)
    together, follow = statistics.together, statistics.follow

    count = KeyedSums.of(own_keys).get(keys)
    recency = KeyedSums.of(own_keys, 1.0 / (1.0 + ages / 20.0)).get(keys)
    days = np.maximum(batch.now[owners] - batch.times, 0) / DAY
    month = KeyedSums.of(own_keys, 0.5 ** (days / 30.0)).get(keys)
    season = KeyedSums.of(own_keys, 0.5 ** (days / 120.0)).get(keys)
    # Visits are distinct times: a basket counts once however many lines it has.
    first_line = np.ones(len(owners), dtype=bool)
    first_line[1:] = (owners[1:] != owners[:-1]) | (batch.times[1:] != batch.times[:-1])
    visits = KeyedSums.of(owners[first_line]).get(index[:, 0])[:, None]
    visit_share = np.minimum(count / np.maximum(visits, 1), 1.0)
    long = batch.newest(LONG)
    newest = KeyedSums.largest(own_keys, batch.times).get(keys, default=-1)
    oldest = -KeyedSums.largest(own_keys, -batch.times).get(keys, default=1)
    fewest_after = -KeyedSums.largest(own_keys, -ages).get(keys, default=-100_000)
    clicked = click_kinds[batch.kinds] if len(click_kinds) else np.zeros(len(batch.kinds), dtype=bool)
    clicks = KeyedSums.of(own_keys[clicked]).get(keys)
    owned = count > 0
    since = np.where(owned, np.maximum(batch.now[:, None] - newest, 0) / DAY, MAX_GAP_DAYS)
    since = np.minimum(since, MAX_GAP_DAYS)
    usual = np.where(count > 1, (newest - oldest) / DAY / np.maximum(count - 1, 1), statistics.gap_days[rows])
    due = np.where(owned, np.log1p(since) - np.log1p(np.maximum(usual, 0.0)), 0.0)
    distinct = KeyedSums.of(KeyedSums.of(own_keys).keys // items).get(index[:, 0])[:, None]
    latest = KeyedSums.largest(owners, batch.times).get(index[:, 0], default=0)
    quiet = np.where(length[:, 0] > 0, np.clip(batch.now - latest, 0, None) / DAY, MAX_GAP_DAYS)
    price = statistics.log_price
    usual_price = KeyedSums.of(owners, price[batch.items]).get(index[:, 0])[:, None] / np.maximum(length, 1)
    text = _similarity(batch, rows, arrays.text_units)
    near = _similarity(batch, rows, arrays.item_units)
    affinity = _similarity(batch, rows, arrays.affinity_units)

    tower = _products(arrays.item_vectors, rows, users.tower)
    factors = _products(arrays.factor_vectors, rows, users.factors)

    columns = [
        tower, tower - best[:, :1], factors, factors - best[:, 1:], *near, *text,
        _products(arrays.affinity_units, rows, users.affinity), *affinity,
        spread(recent, together, items, weights).get(keys), spread(last, together, items, ones).get(keys),
        spread(recent, follow, items, weights).get(keys), spread(last, follow, items, ones).get(keys),
        spread(recent, arrays.text_near, items, weights).get(keys), arrays.text_near_recent[rows],
        np.log1p(count), np.log1p(recency), count / np.maximum(length, 1), np.log1p(since),
        np.log1p(fewest_after), due,
        np.log1p(month), np.log1p(season), visit_share,
        spread(long, together, items, recency_weights(long, 20.0)).get(keys),
        np.log1p(clicks), statistics.repeat_rate[rows], np.log1p(statistics.gap_days[rows]),
        np.log1p(statistics.count[rows]), *np.moveaxis(described(statistics.demand, rows, batch.now), 2, 0),
        price[rows], np.where(length > 0, price[rows] - usual_price, 0.0),
        np.broadcast_to(np.log1p(length), rows.shape),
        np.broadcast_to(1.0 - distinct / np.maximum(length, 1), rows.shape),
        np.broadcast_to(np.log1p(np.minimum(quiet, MAX_GAP_DAYS))[:, None], rows.shape),
        *((candidates.sources >> bit) & 1 for bit in range(len(SOURCES.names))),
        *_affinities(batch, rows, statistics),
    ]  # fmt: skip
    stacked = np.stack([np.asarray(c, dtype=np.float32) for c in columns], axis=2)
    stacked[candidates.rows < 0] = 0.0
    return stacked


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
        values = codes[:, column].astype(np.int64)
        width = int(values.max(initial=0)) + 2
        keys = index * width + values[rows] + 1
        known = values[rows] >= 0
        shares.append(
            np.where(known, KeyedSums.of(owners * width + values[batch.items] + 1, weights).get(keys), 0.0)
            / np.maximum(total, 1e-9)
        )
        lasts.append(
            np.where(known, KeyedSums.of(last.owners() * width + values[last.items] + 1).get(keys), 0.0)
        )
    return [np.asarray(a, dtype=np.float32) for a in (*shares, *lasts)]
