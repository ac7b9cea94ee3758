"""Shared by all baselines: exact top-k by blocks, exclusion of history, popularity as a fallback.

Baselines rank the whole catalogue, like the system. Scores are computed for one block of queries at a time,
never for users x items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from torch import Tensor

from features.data.dataset import BoolArray, Events, FloatArray, IntArray, LongArray
from features.data.histories import HistoryBatch, histories_of
from features.data.prefixes import prefix_blocks
from features.data.splits import Queries, ragged_ranges
from ranking.kernels.dense_scores import best_of
from ranking.kernels.streaming_topk import top_columns

DAY = 86_400
"""Seconds."""
BLOCK_CELLS = 8_000_000
"""Scores per block (32 MB in float32)."""


def prefix_positions(events: Events, end: LongArray) -> LongArray:
    """Return positions of the events before `end` [users], ordered by user and then as they happened."""
    begin = events.offsets[:-1]
    return ragged_ranges(begin, np.maximum(end - begin, 0))


def weighted_counts(
    events: Events, end: LongArray, n_items: int, kind_weights: FloatArray | None
) -> npt.NDArray[np.float64]:
    """Return the events of each item before `end` [users], weighted by kind (1 without weights), [items]."""
    counts = np.zeros(n_items)
    for positions in prefix_blocks(events, end):
        weights = 1.0 if kind_weights is None else kind_weights[events.kind[positions]].astype(np.float64)
        np.add.at(counts, events.item[positions], weights)
    return counts


def has_times(events: Events, end: LongArray) -> bool:
    """Tell whether an event before `end` [users] has a time."""
    return any((events.time[positions] != 0).any() for positions in prefix_blocks(events, end))


def blocks_of(queries: Queries, width: int) -> Iterator[tuple[slice, Queries]]:
    """Return queries in blocks of at most `BLOCK_CELLS` scores, `width` per query."""
    size = max(BLOCK_CELLS // max(width, 1), 1)
    for start in range(0, len(queries), size):
        stop = min(start + size, len(queries))
        yield slice(start, stop), queries.select(np.arange(start, stop, dtype=np.int64))


def empty_lists(n: int, k: int) -> tuple[IntArray, FloatArray]:
    """Return padded lists: rows -1 and scores -inf, [n, k] each."""
    return np.full((n, k), -1, dtype=np.int32), np.full((n, k), -np.inf, dtype=np.float32)


def top_k(scores: FloatArray, k: int) -> tuple[IntArray, FloatArray]:
    """Return the k best columns of each row; ties by column, on every machine.

    Args:
        scores: [rows, items]; entries of -inf are never listed.
        k: list length; short rows are padded with -1 and -inf.

    Returns:
        Columns and scores, [rows, k] each, best first.

    """
    return top_columns(scores, k)


def rank_catalogue(
    events: Events,
    queries: Queries,
    n_items: int,
    k: int,
    exclude_seen: bool,
    score: Callable[[HistoryBatch], FloatArray | Tensor],
    allowed: BoolArray | None = None,
) -> tuple[IntArray, FloatArray]:
    """Return the top k of each query over the whole catalogue, scored block by block.

    Args:
        events: the events of the histories.
        queries: the queries.
        n_items: catalogue size.
        k: list length.
        exclude_seen: leave out the items of events[offsets[user]:end], and nothing else.
        score: returns the scores [queries, items] of a block's histories; the top k of a tensor is computed
            on its device.
        allowed: [items] mask of the items to list; None lists the whole catalogue.

    Returns:
        Rows (-1 padded) and scores (-inf padded), [queries, k] each.

    """
    items, scores = empty_lists(len(queries), k)
    for span, part in blocks_of(queries, n_items):
        histories = histories_of(events, part)
        block = score(histories)
        if isinstance(block, Tensor):
            items[span], scores[span] = best_of(block, histories, k, exclude_seen, allowed)
            continue
        if exclude_seen:
            block[histories.owners(), histories.items] = -np.inf
        if allowed is not None:
            block[:, ~allowed] = -np.inf
        items[span], scores[span] = top_k(block, k)
    return items, scores


def popularity_floor(scores: FloatArray, share: FloatArray, covered: BoolArray) -> FloatArray:
    """Return scores with items that a method does not cover ranked last, by popularity.

    Otherwise a list would end where the method has no evidence, and lose to popularity by default.

    Args:
        scores: [rows, items].
        share: [items] popularity in 0..1.
        covered: [rows, items] mask of the scores that count.

    """
    least = np.min(scores, axis=1, where=covered, initial=0.0, keepdims=True)  # [rows, 1] at most 0
    return np.where(covered, scores, least - 2.0 + share).astype(np.float32)


def popularity_share(counts: npt.NDArray[np.float64]) -> FloatArray:
    """Return counts scaled to 0..1, [items]; items without any are below 0 in a fixed random order.

    Rows often follow the date of addition, so that breaking ties by row would rank new items by information
    that the method does not have.
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
    """Return the head of one shared order for every query, without the items of its history.

    Args:
        order: [items] all rows, best first.
        value: [items] score of each row.
        events: the events of the histories.
        queries: the queries.
        k: list length.
        exclude_seen: leave out each query's history.
        allowed: [items] mask of the items to list; None lists the whole catalogue.

    """
    items, scores = empty_lists(len(queries), k)
    rank_of = np.full(len(order), len(order), dtype=np.int64)  # excluded rows are moved past the end
    if allowed is not None:
        order = order[allowed[order]]
    n_items = len(order)
    rank_of[order] = np.arange(n_items)
    longest = int((queries.end - events.offsets[queries.user]).max(initial=0)) if exclude_seen else 0
    width = min(n_items, k + longest)  # no list needs more of the order
    for span, part in blocks_of(queries, width):
        free = np.ones((len(part), width), dtype=np.bool_)
        if exclude_seen:
            histories = histories_of(events, part)
            where = rank_of[histories.items]
            inside = where < width
            free[histories.owners()[inside], where[inside]] = False
        rank = np.cumsum(free, axis=1) - 1
        row, column = np.nonzero(free & (rank < k))
        chosen = order[column]
        target = rank[row, column]
        items[span][row, target] = chosen
        scores[span][row, target] = value[chosen]
    return items, scores


def descending(scores: npt.NDArray[np.floating]) -> IntArray:
    """Return rows by descending score, ties by row, [items]."""
    return np.argsort(-scores, kind="stable").astype(np.int32)


def unit_rows(vectors: FloatArray) -> FloatArray:
    """Return rows scaled to length one; zero rows stay zero."""
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: FloatArray = (vectors / np.maximum(norm, 1e-12)).astype(np.float32)
    return scaled
