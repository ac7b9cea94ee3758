"""Baselines, run through the system's code path over the same whole catalogue.

Defaults were tuned on validation data of public shops, because a weak baseline proves nothing. A baseline is
fitted on a prefix of every user's events (`fit`), then run on the system's queries (`recommend`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from conf.errors import InputError, closest
from encoders.device import CPU
from encoders.towers.towers import Towers
from features.data.dataset import BoolArray, Events, FloatArray, IntArray, LongArray
from features.data.histories import HistoryBatch, histories_of
from features.data.splits import Queries, Split
from ranking.baselines.factors import Als, Ease
from ranking.baselines.graph import GraphText
from ranking.baselines.items import FrozenText, ItemKnn
from ranking.baselines.lists import (
    DAY,
    blocks_of,
    descending,
    empty_lists,
    has_times,
    list_from_order,
    popularity_share,
    weighted_counts,
)
from ranking.baselines.recent_popularity import RecentPopularity
from ranking.baselines.sasrec import SasrecIds


class Baseline(Protocol):
    """The interface of a baseline."""

    name: str

    def fit(self, events: Events, end: LongArray, now: int, n_items: int) -> None:
        """Learn from events[offsets[u]:end[u]] of every user.

        Args:
            events: all events; only the prefixes may be used.
            end: [users] positions.
            now: Unix seconds of the cut.
            n_items: catalogue size.

        """

    def recommend(
        self,
        events: Events,
        queries: Queries,
        k: int,
        exclude_seen: bool,
        allowed: BoolArray | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Return the ranked catalogue of each query.

        Args:
            events: the events of the histories; none at or after `queries.end` may be used.
            queries: the queries.
            k: list length.
            exclude_seen: leave out exactly the items of each query's history.
            allowed: [items] mask of the items to list; None lists the whole catalogue.

        Returns:
            Rows [queries, k], int32, -1 padded; scores [queries, k], float32, -inf padded.

        """

    def describe(self) -> str:
        """Describe the method and its parameters in one line, for the protocol of a result."""


class Popularity:
    """One list for all users: items with the most events."""

    name = "popularity"

    def __init__(self, kind_weights: FloatArray | None = None) -> None:
        """Take the weight of each event kind; None counts every event as one."""
        self.kind_weights = kind_weights

    def fit(self, events: Events, end: LongArray, now: int, n_items: int) -> None:
        """Count the prefix."""
        counts = weighted_counts(events, end, n_items, self.kind_weights)
        self.share = popularity_share(counts)
        self.order = descending(self.share)

    def recommend(
        self,
        events: Events,
        queries: Queries,
        k: int,
        exclude_seen: bool,
        allowed: BoolArray | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Return the most frequent items, ties in catalogue order; those without events in random order."""
        return list_from_order(self.order, self.share, events, queries, k, exclude_seen, allowed)

    def describe(self) -> str:
        """Describe the method."""
        return "most events before the cut"


def own_items(
    histories: HistoryBatch, n_items: int, half_life_days: float | None
) -> tuple[LongArray, IntArray, npt.NDArray[np.float64], LongArray]:
    """Return the decayed item counts of histories.

    Args:
        histories: histories of a block of queries.
        n_items: catalogue size.
        half_life_days: an event counts half after this many days; None counts every event as one.

    Returns:
        Query, item, decayed count and newest position of each distinct (query, item), sorted by query and
        item.

    """
    owner = histories.owners()
    weight = np.ones(len(owner))
    if half_life_days is not None:
        age = np.maximum(histories.now[owner] - histories.times, 0) / DAY
        weight = 0.5 ** (age / half_life_days)
    keys, group = np.unique(owner * n_items + histories.items, return_inverse=True)
    count = np.bincount(group, weights=weight, minlength=len(keys)).astype(np.float64)
    newest = np.zeros(len(keys), dtype=np.int64)
    np.maximum.at(newest, group, np.arange(len(owner)))
    return keys // n_items, (keys % n_items).astype(np.int32), count, newest


class OwnRepeats:
    """The user's most frequent items, newer events weighted higher, filled up with popular ones.

    On grocery data this is the strongest simple method. Where history is excluded it equals popularity.
    """

    name = "own_repeats"

    def __init__(self, half_life_days: float = 120.0, kind_weights: FloatArray | None = None) -> None:
        """Take the half-life of an event (without timestamps every event counts the same)."""
        self.half_life_days = half_life_days
        self._popularity = Popularity(kind_weights)

    def fit(self, events: Events, end: LongArray, now: int, n_items: int) -> None:
        """Count popularity; a user's own items are read from the query's history."""
        self._popularity.fit(events, end, now, n_items)
        self.has_time = has_times(events, end)
        self.n_items = n_items

    def recommend(
        self,
        events: Events,
        queries: Queries,
        k: int,
        exclude_seen: bool,
        allowed: BoolArray | None = None,
    ) -> tuple[IntArray, FloatArray]:
        """Return the user's own items by decayed count, ties by recency, then popular ones."""
        items, scores = self._popularity.recommend(events, queries, k, True, allowed)
        if exclude_seen:
            return items, scores
        half_life = self.half_life_days if self.has_time else None
        for span, part in blocks_of(queries, 4 * k):
            owner, item, count, newest = own_items(histories_of(events, part), self.n_items, half_life)
            if allowed is not None:
                inside = allowed[item]
                owner, item, count, newest = owner[inside], item[inside], count[inside], newest[inside]
            order = np.lexsort((-newest, -count, owner))
            owner, item, count = owner[order], item[order], count[order]
            sizes = np.bincount(owner, minlength=len(part))
            rank = np.arange(len(owner)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            kept = rank < k
            own_rows, own_scores = empty_lists(len(part), k)
            own_rows[owner[kept], rank[kept]] = item[kept]
            own_scores[owner[kept], rank[kept]] = count[kept]
            # Popular items follow with scores below zero, shifted by the number of own items.
            source = np.arange(k) - np.minimum(sizes, k)[:, None]
            behind = source >= 0
            source = np.maximum(source, 0)
            popular = np.take_along_axis(items[span], source, axis=1)
            below = np.take_along_axis(scores[span], source, axis=1) - 1.0
            items[span] = np.where(behind, popular, own_rows)
            scores[span] = np.where(behind, below, own_scores)
        return items, scores

    def describe(self) -> str:
        """Describe the method."""
        decay = f", halved every {self.half_life_days:g} days" if self.has_time else ""
        return f"the user's own items by count{decay}, then popular ones"


@dataclass(frozen=True)
class BaselineInputs:
    """Inputs of baselines besides events."""

    kind_weights: FloatArray | None = None
    """[kinds] weight of each event kind."""
    text_vectors: FloatArray | None = None
    """[items, dim] vectors of the text encoder before any training."""
    seed: int = 0
    train_ids: Callable[[LongArray], Towers] | None = None
    """Trains towers without text; called when `sasrec_ids` is first fitted."""
    device: torch.device = CPU
    """Device of dense products."""


def _sasrec_ids(inputs: BaselineInputs) -> SasrecIds:
    if inputs.train_ids is None:
        raise InputError("evaluation.baselines: sasrec_ids is trained, which only `evaluate` and `run` do")
    return SasrecIds(inputs.train_ids, inputs.kind_weights, inputs.device)


def _texts(inputs: BaselineInputs, name: str) -> FloatArray:
    if inputs.text_vectors is None:
        raise InputError(f"evaluation.baselines: {name} needs item texts; remove it for a catalogue without")
    return inputs.text_vectors


BASELINES: dict[str, Callable[[BaselineInputs], Baseline]] = {
    "popularity": lambda i: Popularity(i.kind_weights),
    "recent_popularity": lambda i: RecentPopularity(kind_weights=i.kind_weights),
    "own_repeats": lambda i: OwnRepeats(kind_weights=i.kind_weights),
    "item_knn": lambda i: ItemKnn(kind_weights=i.kind_weights),
    "ease": lambda i: Ease(kind_weights=i.kind_weights, device=i.device),
    "als": lambda i: Als(seed=i.seed, kind_weights=i.kind_weights, device=i.device),
    "frozen_text": lambda i: FrozenText(
        _texts(i, "frozen_text"), kind_weights=i.kind_weights, device=i.device
    ),
    "graph_text": lambda i: GraphText(_texts(i, "graph_text"), kind_weights=i.kind_weights),
    "sasrec_ids": _sasrec_ids,
}


def make_baselines(names: Sequence[str], inputs: BaselineInputs) -> list[Baseline]:
    """Return baselines by name, in the given order, each once.

    Raises:
        InputError: an unknown name, or a library or input that a baseline needs is missing.

    """
    for name in names:
        if name not in BASELINES:
            raise InputError(
                f"evaluation.baselines: no baseline '{name}'{closest(name, BASELINES)}; "
                f"there are {', '.join(BASELINES)}"
            )
    return [BASELINES[name](inputs) for name in dict.fromkeys(names)]


def fit_ends(split: Split, window: str) -> tuple[LongArray, int]:
    """Return ends [users] and time of the events that baselines may use for `valid` or `test` queries.

    Validation: everything before validation starts. Test: everything before test starts.
    """
    if window == "valid":
        return split.train_end, split.train_time
    return split.state_end, split.state_time
