"""Ranking examples: candidates of queries, with labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from features.candidates.features import Candidates
from features.data.dataset import BoolArray, Events, FloatArray, IntArray
from features.data.histories import KeyedSums, histories_of
from features.data.splits import Queries
from ranking.recommender import BLOCK, Recommender
from ranking.retrieval.limits import Limits, excluded_keys


@dataclass(frozen=True)
class Examples:
    """Candidates of queries with labels, [queries, candidates] unless noted."""

    features: FloatArray  # [queries, candidates, features]
    real: BoolArray  # False at padding
    chosen: BoolArray  # the user acted on it
    bought: BoolArray  # ... by a purchase (or another kind than a click)
    fused: FloatArray  # fusion score
    negative_share: FloatArray  # [queries] sampled share of the retrieved negatives
    targets: IntArray  # [queries] number of relevant items, retrieved or not

    def __len__(self) -> int:
        return len(self.targets)

    def select(self, index: np.ndarray) -> Examples:
        """Return the queries at an index."""
        return Examples(
            self.features[index],
            self.real[index],
            self.chosen[index],
            self.bought[index],
            self.fused[index],
            self.negative_share[index],
            self.targets[index],
        )


def query_limits(
    recommender: Recommender,
    events: Events,
    queries: Queries,
    exclude_seen: bool,
    allowed: BoolArray | None = None,
) -> Limits:
    """Return the limits of evaluation or training queries: a shared filter, and seen items in or out."""
    batch = histories_of(events, queries)
    count = len(queries)
    none = np.zeros(0, dtype=np.int32)
    return Limits(
        excluded_keys(batch, [none] * count, [exclude_seen] * count, recommender.items), [allowed] * count
    )


def collect(
    recommender: Recommender,
    events: Events,
    queries: Queries,
    *,
    exclude_seen: bool,
    limit: int,
    seed: int,
    allowed: BoolArray | None = None,
    advance: Callable[[int], None] | None = None,
) -> Examples:
    """Return labelled candidates of queries.

    Positives that retrieval missed are not added: they would teach the ranker to trust candidates without a
    source.

    Args:
        recommender: for retrieval; its ranker is not used.
        events: all events.
        queries: queries whose targets are the labels.
        exclude_seen: whether items of the history may be proposed.
        limit: candidates per query: all positives, and sampled negatives; 0 keeps all.
        seed: of the sample.
        allowed: [items] mask of the rows that may be proposed; None allows all.
        advance: called with the number of queries done.

    """
    rng = np.random.default_rng(seed)
    parts: list[Examples] = []
    # Without queries one empty block defines the number of features.
    for start in range(0, max(len(queries), 1), BLOCK):
        block = queries.select(np.arange(start, min(start + BLOCK, len(queries))))
        batch = histories_of(events, block)
        limits = query_limits(recommender, events, block, exclude_seen, allowed)
        users = recommender.encode(batch)
        candidates, _, best = recommender.retrieve(batch, limits, users)
        sizes = np.diff(block.target_offsets)
        owner = np.repeat(np.arange(len(block), dtype=np.int64), sizes)
        bought = (
            ~recommender.click_kinds[block.target_kinds]
            if len(recommender.click_kinds)
            else np.ones(len(owner))
        )
        label = KeyedSums.largest(
            owner * recommender.items + block.targets, 1.0 + np.asarray(bought, dtype=np.float32)
        )
        keys = np.arange(len(block))[:, None] * recommender.items + np.maximum(candidates.rows, 0)
        real = candidates.rows >= 0
        labels = np.where(real, label.get(keys), 0.0)
        negatives = (real & (labels == 0)).sum(axis=1)
        if limit and candidates.rows.shape[1] > limit:
            order = np.where(labels > 0, -1.0, rng.random(labels.shape)) + np.where(real, 0.0, 2.0)
            kept = np.argsort(order, axis=1)[:, :limit]
            candidates = Candidates(
                np.take_along_axis(candidates.rows, kept, axis=1),
                np.take_along_axis(candidates.sources, kept, axis=1),
                np.take_along_axis(candidates.fused, kept, axis=1),
            )
            labels, real = np.take_along_axis(labels, kept, axis=1), np.take_along_axis(real, kept, axis=1)
        kept_negatives = (real & (labels == 0)).sum(axis=1)
        share = np.where(negatives > 0, kept_negatives / np.maximum(negatives, 1), 1.0)
        parts.append(
            Examples(
                recommender.features(batch, candidates, users, best),
                real,
                labels > 0,
                labels > 1,
                candidates.fused,
                share.astype(np.float32),
                sizes.astype(np.int32),
            )
        )
        if advance is not None:
            advance(len(block))
    return stack(parts)


def stack(parts: list[Examples]) -> Examples:
    """Return examples of different widths, concatenated; empties the list.

    Each part is freed once it is copied: the memory of new arrays is provided as they are filled, so that
    millions of feature rows are there once and not twice.
    """
    width, count = max(p.real.shape[1] for p in parts), sum(map(len, parts))
    wide = {}
    for each in fields(Examples):
        array = getattr(parts[0], each.name)
        shape = (count,) if array.ndim == 1 else (count, width, *array.shape[2:])
        wide[each.name] = np.zeros(shape, dtype=array.dtype)
    parts.reverse()
    start = 0
    while parts:
        part = parts.pop()
        for name, filled in wide.items():
            array = getattr(part, name)
            block = filled[start : start + len(part)]
            (block if array.ndim == 1 else block[:, : array.shape[1]])[:] = array
        start += len(part)
    return Examples(**wide)


def ndcg_of_scores(examples: Examples, scores: FloatArray, k: int = 10) -> FloatArray:
    """Return ndcg@k per query of candidates ordered by scores; targets not retrieved count as missed."""
    hidden = np.where(examples.real, scores, -np.inf)
    depth = min(k, hidden.shape[1])
    order = np.argsort(-hidden, axis=1, kind="stable")[:, :depth]
    gains = np.take_along_axis(examples.chosen, order, axis=1) / np.log2(np.arange(2, depth + 2))
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))[np.minimum(examples.targets, k) - 1]
    values: FloatArray = (gains.sum(axis=1) / ideal).astype(np.float32)
    return values
