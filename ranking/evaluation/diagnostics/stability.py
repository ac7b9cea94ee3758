"""Stability of lists: how much of a list remains after its user does one more thing."""

from __future__ import annotations

from typing import Any, Final, Protocol

import numpy as np

from features.data.dataset import IntArray
from features.data.splits import Queries
from ranking.evaluation.list_overlap import overlap_at, rank_biased_overlap
from ranking.evaluation.metrics import HEADLINE
from ranking.evaluation.significance import bootstrap_intervals

SAMPLE: Final = 500
"""Queries of the seeded sample: each is answered a second time."""


class AfterEvent(Protocol):
    """Makes the lists of queries again after one more event."""

    @property
    def event(self) -> str:
        """Kind of the event."""

    def __call__(self, queries: Queries, items: IntArray) -> IntArray:
        """Return the lists after an event on the items [queries], [queries, depth] padded with -1."""


def stability_summary(
    queries: Queries, lists: IntArray, after: AfterEvent, resamples: int, seed: int, level: float
) -> dict[str, Any] | None:
    """Return the mean overlap@10 and rank-biased overlap of lists before and after one event.

    The event is on an item of the list itself, at a random place among the first ten: what a shopper is most
    likely to do with a list. That item is left out of both lists, because a shop may exclude it on purpose.

    Args:
        queries: the measured queries.
        lists: [queries, depth] lists before.
        after: makes the lists after the event.
        resamples: bootstrap samples of the intervals.
        seed: of the sample, the places and the bootstrap.
        level: of the intervals.

    Returns:
        None where no list has an item.
    """
    rng = np.random.default_rng(seed)
    lengths = (lists[:, :HEADLINE] >= 0).sum(axis=1)
    chosen = np.flatnonzero(lengths)
    if len(chosen) == 0:
        return None
    if len(chosen) > SAMPLE:
        chosen = np.sort(rng.choice(chosen, SAMPLE, replace=False))
    clicked = lists[chosen, rng.integers(lengths[chosen])].astype(np.int32)
    before = without(lists[chosen], clicked)
    new = without(after(queries.select(chosen), clicked), clicked)
    values = np.stack(
        [overlap_at(before, new, HEADLINE), rank_biased_overlap(before[:, :HEADLINE], new[:, :HEADLINE])],
        axis=1,
    )
    low, high = bootstrap_intervals(values, resamples, seed, level)
    names = (f"overlap@{HEADLINE}", "rbo")
    return {
        "queries": len(chosen),
        "event": after.event,
        **{
            name: {"mean": float(values[:, n].mean()), "low": float(low[n]), "high": float(high[n])}
            for n, name in enumerate(names)
        },
        "unchanged": float((values[:, 1] >= 1 - 1e-12).mean()),
    }


def without(lists: IntArray, items: IntArray) -> IntArray:
    """Return lists [queries, depth] without one item each [queries], the rest moved up, padded with -1."""
    dropped = lists == items[:, None]
    order = np.argsort(dropped, axis=1, kind="stable")
    kept = np.where(dropped, -1, lists)
    return np.take_along_axis(kept, order, axis=1)
