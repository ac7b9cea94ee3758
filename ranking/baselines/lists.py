"""What every baseline shares: exact top-k by blocks, exclusion of history, popularity underneath.

Baselines rank the whole catalogue like the system they are compared with. Scores are held for one block of
queries at a time, never for users x items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from torch import Tensor

from features.data.dataset import BoolArray, Events, FloatArray, IntArray, LongArray
from features.data.histories import HistoryBatch, histories_of
from features.data.splits import Queries, ragged_ranges
from ranking.kernels.dense_scores import best_of

BLOCK_CELLS = 8_000_000
"""Scores held at once (32 MB in float32)."""


def prefix_positions(events: Events, end: LongArray) -> LongArray:
    """Return positions of the events before `end` [users], ordered by user and then as they happened."""
    begin = events.offsets[:-1]
    return ragged_ranges(begin, np.maximum(end - begin, 0))


def weighted_counts(
    events: Events, positions: LongArray, n_items: int, kind_weights: FloatArray | None
) -> npt.NDArray[np.float64]:
    """Count events per item, each worth its kind's weight (1 without weights), [items]."""
    weights = None if kind_weights is None else kind_weights[events.kind[positions]]
    return np.bincount(events.item[positions], weights=weights, minlength=n_items).astype(np.float64)


def blocks_of(queries: Queries, width: int) -> Iterator[tuple[slice, Queries]]:
    """Cut queries into blocks of at most `BLOCK_CELLS` scores of `width` each."""
    size = max(BLOCK_CELLS // max(width, 1), 1)
    for start in range(0, len(queries), size):
        stop = min(start + size, len(queries))
        yield slice(start, stop), queries.select(np.arange(start, stop, dtype=np.int64))


def empty_lists(n: int, k: int) -> tuple[IntArray, FloatArray]:
    """Return padded lists: rows -1 and scores -inf, [n, k] each."""
    return np.full((n, k), -1, dtype=np.int32), np.full((n, k), -np.inf, dtype=np.float32)


def top_k(scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Return the k best columns of each row; equal scores go to the lower column, on every machine.

    Args:
        scores: [rows, items]; -inf never appears in a list.
        k: list length; short rows are padded with -1 and -inf.

    Returns:
        Columns and scores, [rows, k] each, best first.

    """
    rows, items = scores.shape
    width = min(k, items)
    columns, values = empty_lists(rows, k)
    if rows == 0 or width == 0:
        return columns, values
    # A partition alone would pick arbitrary columns among those that tie with the k-th score.
    worst = np.partition(scores, items - width, axis=1)[:, items - width, None]
    chosen = scores > worst
    tied = scores == worst
    room = width - chosen.sum(axis=1)
    crowded = tied.sum(axis=1) > room
    tied[crowded] &= np.cumsum(tied[crowded], axis=1, dtype=np.int32) <= room[crowded, None]
    chosen |= tied
    best = np.nonzero(chosen)[1].reshape(rows, width)
    picked = np.take_along_axis(scores, best, axis=1)
    order = np.argsort(-picked, axis=1, kind="stable")
    values[:, :width] = np.take_along_axis(picked, order, axis=1)
    columns[:, :width] = np.where(np.isneginf(values[:, :width]), -1, np.take_along_axis(best, order, axis=1))
    return columns, values


def rank_catalogue(
    events: Events,
    queries: Queries,
    n_items: int,
    k: int,
    exclude_seen: bool,
    score: Callable[[HistoryBatch], FloatArray | Tensor],
    allowed: BoolArray | None = None,
) -> tuple[IntArray, FloatArray]:
    """Score the whole catalogue block by block and keep the best k of each query.

    Args:
        events: the events that histories are read from.
        queries: which lists to make.
        n_items: catalogue size.
        k: list length.
        exclude_seen: leave out the items of events[offsets[user]:end], and nothing else.
        score: gives [queries, items] scores for the histories of a block; where they are a tensor, the best
            are found on its device.
        allowed: [items] rows that lists are made from; None is the whole catalogue.

    Returns:
        Rows (-1 padded) and scores (-inf padded), [queries, k] each.

    """
    items, scores = empty_lists(len(queries), k)
    for place, part in blocks_of(queries, n_items):
        histories = histories_of(events, part)
        block = score(histories)
        if isinstance(block, Tensor):
            items[place], scores[place] = best_of(block, histories, k, exclude_seen, allowed)
            continue
        if exclude_seen:
            block[histories.owners(), histories.items] = -np.inf
        if allowed is not None:
            block[:, ~allowed] = -np.inf
        items[place], scores[place] = top_k(block, k)
    return items, scores


def popularity_floor(scores: FloatArray, share: FloatArray, covered: BoolArray) -> FloatArray:
    """Put what a method says nothing about behind everything else, by popularity.

    Without this a list ends where a method runs out of evidence, and popularity would beat it by default.

    Args:
        scores: [rows, items].
        share: [items] popularity in 0..1.
        covered: [rows, items] where the method has an opinion.

    """
    least = np.min(scores, axis=1, where=covered, initial=0.0, keepdims=True)  # [rows, 1] at most 0
    return np.where(covered, scores, least - 2.0 + share).astype(np.float32)


def popularity_share(counts: npt.NDArray[np.float64]) -> FloatArray:
    """Scale counts into 0..1, [items]; items without any stand below 0 in a fixed random order.

    Ties go by row, and rows often tell when an item was added: in that order, knowing nothing about new items
    would look like knowing which of them sell first.
    """
    share = (counts / max(float(counts.max(initial=0.0)), 1e-12)).astype(np.float32)
    drawn = np.random.default_rng(0).random(len(counts), dtype=np.float32)
    return np.where(counts > 0, share, -1e-3 * drawn).astype(np.float32)


def list_from_order(
    order: IntArray,
    value: FloatArray,
    events: Events,
    queries: Queries,
    k: int,
    exclude_seen: bool,
    allowed: BoolArray | None = None,
) -> tuple[IntArray, FloatArray]:
    """Give every query the head of one shared order, less the items of its history.

    Args:
        order: [items] all rows, best first.
        value: [items] score of each row.
        events: the events that histories are read from.
        queries: which lists to make.
        k: list length.
        exclude_seen: leave out each query's history.
        allowed: [items] rows that lists are made from; None is the whole catalogue.

    """
    items, scores = empty_lists(len(queries), k)
    place_of = np.full(len(order), len(order), dtype=np.int64)  # what may not appear stands behind the end
    if allowed is not None:
        order = order[allowed[order]]
    n_items = len(order)
    place_of[order] = np.arange(n_items)
    longest = int((queries.end - events.offsets[queries.user]).max(initial=0)) if exclude_seen else 0
    width = min(n_items, k + longest)  # no list can need more of the order than this
    for place, part in blocks_of(queries, width):
        free = np.ones((len(part), width), dtype=np.bool_)
        if exclude_seen:
            histories = histories_of(events, part)
            where = place_of[histories.items]
            inside = where < width
            free[histories.owners()[inside], where[inside]] = False
        rank = np.cumsum(free, axis=1) - 1
        row, column = np.nonzero(free & (rank < k))
        chosen = order[column]
        target = rank[row, column]
        items[place][row, target] = chosen
        scores[place][row, target] = value[chosen]
    return items, scores


def descending(scores: npt.NDArray[np.floating]) -> IntArray:
    """Return rows by falling score, ties by row, [items]."""
    return np.argsort(-scores, kind="stable").astype(np.int32)


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Scale rows to length one; zero rows, which are like nothing, stay zero."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: FloatArray = (vectors / np.maximum(norm, 1e-12)).astype(np.float32)
    return scaled
