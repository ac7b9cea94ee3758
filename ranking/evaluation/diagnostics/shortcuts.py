"""Shortcuts of a data set: how far the targets can be guessed from the last event alone.

Data sets differ more in this than models do. Where most targets are bought on the day of the last event, or
follow it in other histories, a high recall shows that the data are easy, not that the model knows the user;
where an item has few successors, two data sets of equal recall are not equally hard.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import polars as pl

from features.data.dataset import Dataset, Events, FloatArray, IntArray, LongArray
from features.data.histories import contains, seen_keys
from features.data.splits import Queries
from features.data.statistics import PAIRED_EVENTS, drawn_blocks
from ranking.evaluation.metrics import recall_at
from ranking.evaluation.slices import same_day

NEAREST: Final = (10, 100)
"""Numbers of nearest texts in which targets are looked for."""
SUCCESSORS: Final = 10
"""Length of the list of the last item's most frequent successors."""
TEXT_QUERIES: Final = 2000
"""Most queries of the seeded sample for texts: each is compared with the whole catalogue."""
FEWEST: Final = 200
"""Queries of that sample in the largest catalogues."""
TEXT_CELLS: Final = 100_000_000
"""Comparisons of a query with an item, beyond which the sample is smaller."""
BLOCK_CELLS: Final = 16_000_000
"""Similarities computed at a time; bounds memory to 64 MB."""


def transitions(events: Events, end: LongArray) -> pl.DataFrame:
    """Return how often an item follows another directly in a history: `item`, `next`, `times`.

    Of more than `PAIRED_EVENTS` events, those of drawn users are counted.

    Args:
        events: all events.
        end: [users] events before this position of each user count.
    """
    counted = []
    for positions in drawn_blocks(events, end, PAIRED_EVENTS):
        first = positions[positions + 1 < end[events.user[positions]]]
        pairs = pl.DataFrame({"item": events.item[first], "next": events.item[first + 1]})
        pairs = pairs.filter(pl.col("item") != pl.col("next"))
        counted.append(pairs.group_by("item", "next").agg(times=pl.len()))
    if not counted:
        return pl.DataFrame(schema={"item": pl.Int32, "next": pl.Int32, "times": pl.UInt32})
    if len(counted) == 1:
        return counted[0]
    return pl.concat(counted).group_by("item", "next").agg(pl.col("times").sum())


def _last_items(events: Events, queries: Queries) -> IntArray:
    """Return the last item of each history, -1 without one, [queries]."""
    known = queries.end > events.offsets[queries.user]
    return np.where(known, events.item[np.maximum(queries.end - 1, 0)], -1).astype(np.int32)


def _share(mask: np.ndarray) -> float | None:
    return float(mask.mean()) if len(mask) else None


def _successors(pairs: pl.DataFrame, last: IntArray, queries: Queries, items: int) -> dict[str, Any]:
    """Return the branching of transitions, and how many targets are known successors of the last item."""
    branching = pairs.group_by("item").agg(successors=pl.len())["successors"]
    owners = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
    asked = last[owners] >= 0
    keys = np.sort(pairs["item"].to_numpy().astype(np.int64) * items + pairs["next"].to_numpy())
    known = contains(keys, last[owners].astype(np.int64) * items + queries.targets)[asked]
    distinct = np.bincount(pairs["item"].to_numpy(), minlength=items)
    best = np.full((items + 1, SUCCESSORS), -1, dtype=np.int32)  # the last row is of histories without events
    ranked = pairs.sort("item", "times", "next", descending=[False, True, False])
    place = ranked.select(pl.int_range(pl.len()).over("item")).to_series().to_numpy()
    near = place < SUCCESSORS
    best[ranked["item"].to_numpy()[near], place[near]] = ranked["next"].to_numpy()[near]
    (recall,) = recall_at(best[last], queries, (SUCCESSORS,))
    return {
        "transitions": len(pairs),
        "mean_successors": None if len(branching) == 0 else float(np.mean(branching.to_numpy())),
        "median_successors": None if len(branching) == 0 else float(np.median(branching.to_numpy())),
        "targets_known_successors": _share(known),
        "targets_known_successors_by_chance": _share(distinct[last[owners][asked]] / items),
        f"successors_recall@{SUCCESSORS}": _share(recall),
    }


def _text_smoothness(vectors: FloatArray, last: IntArray, queries: Queries, seed: int) -> dict[str, Any]:
    """Return how often a target is among the texts nearest to the last item's, and by chance."""
    sizes = np.diff(queries.target_offsets)
    chosen = np.flatnonzero((last >= 0) & (sizes > 0))
    most = min(TEXT_QUERIES, max(TEXT_CELLS // len(vectors), FEWEST))
    if len(chosen) > most:
        chosen = np.sort(np.random.default_rng(seed).choice(chosen, most, replace=False))
    part, own = queries.select(chosen), last[chosen]
    nearer = np.zeros(len(part.targets), dtype=np.int64)
    same = np.zeros(len(part.targets), dtype=np.bool_)
    step = max(BLOCK_CELLS // len(vectors), 1)
    for start in range(0, len(part), step):
        stop = min(start + step, len(part))
        cosines = vectors[own[start:stop]] @ vectors.T  # [block, items]
        cosines[np.arange(stop - start), own[start:stop]] = -np.inf  # the last item is not its own neighbour
        for query in range(start, stop):
            places = slice(int(part.target_offsets[query]), int(part.target_offsets[query + 1]))
            targets, row = part.targets[places], cosines[query - start]
            nearer[places] = [int((row > row[target]).sum()) for target in targets]
            same[places] = targets == own[query]
    others = len(vectors) - 1
    return {
        "queries": len(part),
        **{f"targets_in_nearest_{k}": _share((nearer < k) & ~same) for k in NEAREST},
        **{f"by_chance_{k}": min(k / others, 1.0) if others > 0 else None for k in NEAREST},
    }


def shortcuts(
    dataset: Dataset, queries: Queries, known_end: LongArray, vectors: FloatArray | None, seed: int
) -> dict[str, Any]:
    """Return the shortcuts of a data set under a protocol.

    Args:
        dataset: the dataset.
        queries: the measured queries.
        known_end: [users] where the events end that baselines may use for these queries.
        vectors: [items, dim] unit text vectors of the encoder before any training; None leaves texts out.
        seed: of the sample of queries for texts.

    Returns:
        Plain values, shares of targets unless noted; see docs/evaluation.md. None where they do not apply: no
        timestamps, no history, no texts.
    """
    events, items = dataset.events, len(dataset.catalogue)
    last = _last_items(events, queries)
    owners = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
    known = last[owners] >= 0
    seen = seen_keys(events, queries, items)
    same, _ = same_day(events, queries) if dataset.has_time else (None, None)
    return {
        "targets": len(owners),
        "targets_with_history": int(known.sum()),
        "same_day": None if same is None else _share(same[known]),
        "in_history": _share(contains(seen, owners * items + queries.targets)[known]),
        **_successors(transitions(events, known_end), last, queries, items),
        "text": None if vectors is None else _text_smoothness(vectors, last, queries, seed),
    }
