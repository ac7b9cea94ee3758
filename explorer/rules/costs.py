"""What rules cost: accuracy and reach of the lists for the same validation queries, before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from features.data.dataset import Events, IntArray, LongArray
from features.data.histories import histories_of
from features.data.splits import Queries
from ranking.evaluation.metrics import ValueArray, catalogue_coverage, ranking_metrics
from ranking.evaluation.significance import paired_test
from ranking.types import Recommendation

K: Final = 10
NAMES: Final = ("recall@10", "ndcg@10", "popularity_lift@10", "new_items@10")
"""What is measured of every query; of all together also the share of the catalogue in some list."""


@dataclass(frozen=True)
class Cost:
    """One measure before and after."""

    name: str
    before: float
    after: float
    difference: float | None
    """Of the pairs; None where the measure belongs to all lists together."""
    low: float | None
    """Ends of the 95 % interval of the difference."""
    high: float | None

    @property
    def sure(self) -> bool:
        """Whether the interval lies on one side of zero."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def lists_of(answers: Sequence[Recommendation]) -> IntArray:
    """Return the rows of lists, [lists, 10] padded with -1."""
    rows = np.full((len(answers), K), -1, dtype=np.int32)
    for line, answer in zip(rows, answers, strict=True):
        own = [item.row for item in answer.items[:K]]
        line[: len(own)] = own
    return rows


def values(items: IntArray, queries: Queries, events: Events, counts: LongArray) -> dict[str, ValueArray]:
    """Return every measure of every query, [queries] each.

    Args:
        items: the lists, [queries, 10] padded with -1.
        queries: with their targets.
        events: all events; a history ends at its query's position.
        counts: [items] events before the validation window. Popularity lift is the mean popularity of a list
            divided by that of all histories, so that its mean is the lift of the report where all histories
            and lists have items; an item without such events is new.

    """
    accuracy = ranking_metrics(items, queries, (K,))
    real = items >= 0
    sizes = np.maximum(real.sum(axis=1), 1)
    shown = np.where(real, counts[np.maximum(items, 0)], 0).sum(axis=1) / sizes
    new = np.where(real, counts[np.maximum(items, 0)] == 0, False).sum(axis=1) / sizes
    batch = histories_of(events, queries)
    lengths = np.diff(batch.offsets)
    sums = np.add.reduceat(
        np.append(counts[batch.items], 0), np.minimum(batch.offsets[:-1], len(batch.items))
    )
    past = np.where(lengths > 0, sums / np.maximum(lengths, 1), 0.0)
    usual = float(past[lengths > 0].mean()) if (lengths > 0).any() else 0.0
    return {
        "recall@10": accuracy["recall@10"],
        "ndcg@10": accuracy["ndcg@10"],
        "popularity_lift@10": shown / usual if usual else np.zeros(len(items)),
        "new_items@10": new,
    }


def costs(
    before: IntArray, after: IntArray, queries: Queries, events: Events, counts: LongArray
) -> tuple[Cost, ...]:
    """Return every measure of two sets of lists for the same queries; arguments as of `values`."""
    old, new = (values(items, queries, events, counts) for items in (before, after))
    ours, theirs = (np.stack([found[name] for name in NAMES], axis=1) for found in (new, old))
    test = paired_test(ours, theirs, permutations=1)
    found = [
        Cost(
            name,
            float(old[name].mean()),
            float(new[name].mean()),
            float(test.difference[i]),
            float(test.low[i]),
            float(test.high[i]),
        )
        for i, name in enumerate(NAMES)
    ]
    reach = [catalogue_coverage(items, len(counts), K) for items in (before, after)]
    return (*found, Cost("coverage@10", reach[0], reach[1], None, None, None))
