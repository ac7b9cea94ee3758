"""Ranking metrics, vectorised over queries.

Accuracy metrics are per query, so that intervals and paired tests can be computed from them. Relevance is
binary, over the whole catalogue; no metric is sampled. Definitions (r counts from 1,
rel(q) are the targets of a query, hit(r) is 1 when the item at rank r is a target that did not appear at a
smaller rank):

- recall@k: hits within k / |rel|; hit@k: 1 when there is a hit within k.
- ndcg@k: sum of hit(r) / log2(r + 1) within k, divided by the same sum for min(k, |rel|) hits at the top
  (Järvelin and Kekäläinen 2002).
- mrr@k: 1 / rank of the first hit within k, else 0; `mrr` uses the full depth of the list.
- map@k: sum of hit(r) * (hits within r) / r within k, divided by min(k, |rel|).

A query without targets scores 0 everywhere. A padded or repeated entry occupies its rank and never counts as
a hit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from features.data.dataset import BoolArray, Events, FloatArray, IntArray, LongArray
from features.data.histories import contains
from features.data.prefixes import user_blocks
from features.data.splits import Queries, ragged_ranges

ValueArray = npt.NDArray[np.float64]
HEADLINE = 10
"""Cutoff of slices, stages, losses, significance and beyond-accuracy metrics; always among the cutoffs."""


def hit_matrix(items: IntArray, queries: Queries) -> BoolArray:
    """Return the ranks at which a target appears for the first time.

    Args:
        items: [queries, depth] catalogue rows, best first; -1 is padding.
        queries: the queries with their targets.

    Returns:
        [queries, depth] flags.

    Raises:
        ValueError: when lists and queries differ in number.

    """
    if items.ndim != 2 or len(items) != len(queries):
        raise ValueError(f"{items.shape} lists for {len(queries)} queries")
    if items.size == 0 or len(queries.targets) == 0:
        return np.zeros(items.shape, dtype=np.bool_)
    rows = np.arange(len(items), dtype=np.int64)
    span = max(int(items.max()), int(queries.targets.max())) + 1
    relevant = np.repeat(rows, np.diff(queries.target_offsets)) * span + queries.targets
    keys = rows[:, None] * span + items  # [queries, depth]
    found = contains(np.sort(relevant), keys) & (items >= 0)
    # Hits are few, so only these are deduplicated; np.unique keeps the first position of each.
    positions = np.flatnonzero(found)
    first = positions[np.unique(keys.ravel()[positions], return_index=True)[1]]
    hits = np.zeros(items.size, dtype=np.bool_)
    hits[first] = True
    return hits.reshape(items.shape)


def target_ranks(items: IntArray, queries: Queries) -> IntArray:
    """Return the rank of each target in its query's list, from 1; 0 where the list lacks it, [total targets].

    Args:
        items: [queries, depth] catalogue rows, best first; -1 is padding.
        queries: the queries with their targets.

    """
    ranks = np.zeros(len(queries.targets), dtype=np.int32)
    query, place = np.nonzero(hit_matrix(items, queries))
    if len(query) == 0:
        return ranks
    span = max(int(items.max()), int(queries.targets.max())) + 1
    owners = np.repeat(np.arange(len(queries), dtype=np.int64), np.diff(queries.target_offsets))
    keys = owners * span + queries.targets
    order = np.argsort(keys, kind="stable")
    found = query * span + items[query, place]
    ranks[order[np.searchsorted(keys[order], found)]] = place + 1
    return ranks


def _up_to(cumulative: ValueArray, k: int) -> ValueArray:
    """Return column k of a cumulative [queries, depth] array, [queries]; the last one of shorter lists."""
    depth = min(k, cumulative.shape[1])
    return cumulative[:, depth - 1] if depth else np.zeros(len(cumulative))


def recall_at(items: IntArray, queries: Queries, depths: Sequence[int]) -> list[ValueArray]:
    """Return recall per query at each depth; cheaper than `ranking_metrics` for long candidate lists."""
    found = np.cumsum(hit_matrix(items, queries), axis=1, dtype=np.float64)
    relevant = np.maximum(np.diff(queries.target_offsets), 1)
    return [_up_to(found, k) / relevant for k in depths]


def ranking_metrics(items: IntArray, queries: Queries, ks: Sequence[int]) -> dict[str, ValueArray]:
    """Return every accuracy metric per query.

    Args:
        items: [queries, depth] catalogue rows, best first; -1 is padding.
        queries: the queries with their targets.
        ks: cutoffs, each 1 or more; may exceed the depth.

    Returns:
        `recall@k`, `ndcg@k`, `hit@k`, `mrr@k`, `map@k` for every k, and `mrr`, each [queries] in 0..1.

    Raises:
        ValueError: when lists and queries differ in number, or a cutoff is below 1.

    """
    if any(k < 1 for k in ks):
        raise ValueError(f"cut-offs must be 1 or more: {list(ks)}")
    hits = hit_matrix(items, queries).astype(np.float64)
    depth = hits.shape[1]
    ranks = np.arange(1, depth + 1, dtype=np.float64)
    relevant = np.diff(queries.target_offsets)
    found = np.cumsum(hits, axis=1)  # [queries, depth] hits within each rank
    gain = np.cumsum(hits / np.log2(ranks + 1), axis=1)
    precision = np.cumsum(hits * found / ranks, axis=1)
    first = (
        np.where(found[:, -1] > 0, hits.argmax(axis=1) + 1, np.inf) if depth else np.full(len(hits), np.inf)
    )
    ideal = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, max(ks, default=1) + 2)))])
    values: dict[str, ValueArray] = {}
    for k in ks:
        best = np.minimum(relevant, k)  # [queries] hits that a perfect list has within k
        within = _up_to(found, k)
        values[f"recall@{k}"] = within / np.maximum(relevant, 1)
        values[f"ndcg@{k}"] = _up_to(gain, k) / np.maximum(ideal[best], 1)
        values[f"hit@{k}"] = (within > 0).astype(np.float64)
        values[f"mrr@{k}"] = np.where(first <= k, 1 / first, 0.0)
        values[f"map@{k}"] = _up_to(precision, k) / np.maximum(best, 1)
    values["mrr"] = 1 / first
    return values


def means(values: Mapping[str, ValueArray]) -> dict[str, float | None]:
    """Return the mean of each metric over queries; None without queries."""
    return {name: float(v.mean()) if len(v) else None for name, v in values.items()}


def _first_occurrence(items: IntArray) -> BoolArray:
    """Return the mask of valid entries that do not repeat an earlier one of the list, [queries, k]."""
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, axis=1)
    fresh = np.ones(items.shape, dtype=np.bool_)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = np.zeros(items.shape, dtype=np.bool_)
    np.put_along_axis(first, order, fresh, axis=1)
    return first & (items >= 0)


def catalogue_coverage(items: IntArray, n_items: int, k: int) -> float:
    """Return the share of the catalogue that appears in at least one list's first k."""
    shown = np.unique(items[:, :k])
    return float((shown >= 0).sum() / max(n_items, 1))


def novelty(items: IntArray, counts: LongArray, k: int) -> float | None:
    """Return the mean self-information of recommended items in bits (Zhou et al. 2010).

    An item's probability is (events + 1) / (all events + items), so an item without events stays finite.
    Averaged within a list, then over lists that are not empty.

    Args:
        items: [queries, depth] rows.
        counts: [items] training events.
        k: first entries of each list to use.

    """
    bits = -np.log2((counts + 1) / (counts.sum() + len(counts)))
    return _mean_of_lists(items[:, :k], bits)


def _mean_of_lists(items: IntArray, value: ValueArray) -> float | None:
    valid = _first_occurrence(items)
    sizes = valid.sum(axis=1)
    if not sizes.any():
        return None
    sums = np.where(valid, value[np.maximum(items, 0)], 0.0).sum(axis=1)
    return float((sums[sizes > 0] / sizes[sizes > 0]).mean())


def intra_list_diversity(items: IntArray, vectors: FloatArray, k: int, block: int = 1024) -> float | None:
    """Return 1 - mean cosine over the pairs of a list, averaged over lists with at least two items.

    Args:
        items: [queries, depth] rows.
        vectors: [items, dim] unit vectors.
        k: first entries of each list to use.
        block: lists gathered at a time; bounds memory to block * k * dim floats.

    """
    cosines: list[ValueArray] = []
    for start in range(0, len(items), block):
        part = items[start : start + block, :k]
        valid = _first_occurrence(part)
        chosen = np.where(valid[..., None], vectors[np.maximum(part, 0)], 0.0)  # [block, k, dim]
        sizes = valid.sum(axis=1)
        # |sum of vectors|^2 is the sum over all ordered pairs, the pairs of an item with itself included.
        total = np.square(chosen.sum(axis=1), dtype=np.float64).sum(axis=1)
        own = np.square(chosen, dtype=np.float64).sum(axis=(1, 2))
        pairs = sizes * (sizes - 1)
        cosines.append((total - own)[pairs > 0] / pairs[pairs > 0])
    every = np.concatenate([*cosines, np.zeros(0)])
    return float(1 - every.mean()) if len(every) else None


def popularity_lift(
    items: IntArray, events: Events, queries: Queries, counts: LongArray, k: int
) -> float | None:
    """Return the popularity of the lists relative to the users' histories.

    Mean training popularity of recommended items / mean training popularity of history events, each averaged
    per user first (the ratio form of Abdollahpouri et al. 2019). 1 matches the users' taste; above 1 drifts
    to the head. Users with an empty list or an empty history are left out.
    """
    begin = events.offsets[queries.user]
    length = queries.end - begin
    totals = np.zeros(len(queries))
    for low, high in user_blocks(np.concatenate([[0], np.cumsum(length)])):
        positions = ragged_ranges(begin[low:high], length[low:high])
        owners = np.repeat(np.arange(high - low), length[low:high])
        totals[low:high] = np.bincount(owners, counts[events.item[positions]], minlength=high - low)
    history = totals / np.maximum(length, 1)  # [queries]
    counted = (length > 0) & (items[:, :k] >= 0).any(axis=1)
    shown = _mean_of_lists(items[counted, :k], counts.astype(np.float64))
    before = float(history[counted].mean()) if counted.any() else 0.0
    return shown / before if shown is not None and before > 0 else None
