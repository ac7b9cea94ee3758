"""Cold items, without events before a cut, ranked among themselves and in the full catalogue.

In the full catalogue a cold item competes with items that have events, and hardly any list contains one.
Within the cold catalogue systems have little but the text of an item, so this measures what was learned about
texts. Which items are cold depends only on the events before the cut, not on the queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from features.data.dataset import BoolArray, Dataset, Events, LongArray
from features.data.histories import contains, seen_keys
from features.data.prefixes import item_counts
from features.data.splits import Queries
from ranking.evaluation.list_providers import Answer, ListProvider
from ranking.evaluation.metrics import ValueArray, means
from ranking.evaluation.significance import bootstrap_intervals
from ranking.evaluation.slices import restrict_targets
from ranking.evaluation.stage_recall import HEADLINE, ranked_values

RANDOM = "random"
"""Name of the expectation over random orders, listed with the systems."""


@dataclass(frozen=True)
class ColdPart:
    """A cold catalogue, the queries with targets in it, and the systems' answers to these."""

    name: str
    about: str
    """One phrase for readers of the report."""
    allowed: BoolArray  # [items] mask of the cold items
    queries: Queries
    """Queries with only their cold targets."""
    index: LongArray  # [part] position of each query among all
    answers: dict[str, Answer] = field(default_factory=dict)
    """Lists from the cold catalogue alone by system; filled by `run`."""

    def run(self, system: str, lister: ListProvider) -> None:
        """Collect a system's lists of cold items."""
        self.answers[system] = lister(self.queries, self.allowed)


def cold_parts(
    dataset: Dataset, queries: Queries, train_end: LongArray, known_end: LongArray
) -> list[ColdPart]:
    """Return the cold parts of queries.

    Args:
        dataset: the dataset.
        queries: validation or test queries.
        train_end: [users] where training ends and validation starts; a refit also learns from later events.
        known_end: [users] where the events end that statistics and baselines may use for these queries.

    Returns:
        `no_training_event`; and `no_event`, where the two ends differ.
    """

    def part(name: str, about: str, end: LongArray) -> ColdPart:
        allowed = item_counts(dataset.events, end, len(dataset.catalogue)) == 0
        return ColdPart(name, about, allowed, *restrict_targets(queries, allowed[queries.targets]))

    parts = [part("no_training_event", "items without an event before validation", train_end)]
    if not np.array_equal(train_end, known_end):
        parts.append(part("no_event", "items without any event", known_end))
    return parts


def random_values(
    events: Events, queries: Queries, allowed: BoolArray, exclude_seen: bool, k: int = HEADLINE
) -> dict[str, ValueArray]:
    """Return the expected recall@k and ndcg@k of lists in random order, in closed form.

    Each of the first min(k, n) ranks of n items holds a given item with probability 1 / n; recall and DCG
    are sums over ranks, so their expectations need no independence.

    Args:
        events: the events of the histories.
        queries: the queries with their targets.
        allowed: [items] mask of the items to rank.
        exclude_seen: whether items of the history, and targets among them, are left out.
        k: list length.

    Returns:
        `recall@k` and `ndcg@k`, [queries] each; 0 for an empty list.
    """
    relevant = np.diff(queries.target_offsets).astype(np.float64)
    listed = np.full(len(queries), float(allowed.sum()))
    reachable = relevant.copy()
    if exclude_seen:
        seen = seen_keys(events, queries, len(allowed))
        listed -= np.bincount((seen // len(allowed))[allowed[seen % len(allowed)]], minlength=len(queries))
        owner = np.repeat(np.arange(len(queries), dtype=np.int64), np.diff(queries.target_offsets))
        lost = contains(seen, owner * len(allowed) + queries.targets)
        reachable -= np.bincount(owner[lost], minlength=len(queries))
    gains = 1.0 / np.log2(np.arange(2, k + 2))
    best = np.concatenate([[0.0], np.cumsum(gains)])  # [k + 1] DCG of n hits in the first n ranks
    ranks = np.minimum(k, np.maximum(listed, 0)).astype(np.int64)
    chance = reachable / np.maximum(listed, 1.0)  # that a rank holds a target
    ideal = best[np.minimum(relevant, k).astype(np.int64)]
    return {
        f"recall@{k}": chance * ranks / np.maximum(relevant, 1.0),
        f"ndcg@{k}": chance * best[ranks] / np.maximum(ideal, 1e-12),
    }


def cold_summary(
    part: ColdPart,
    whole: Mapping[str, Answer],
    events: Events,
    exclude_seen: bool,
    resamples: int,
    seed: int,
    level: float,
) -> dict[str, Any]:
    """Return the means of a cold part, within the cold catalogue and, for the same targets, in the full one.

    Args:
        part: the part, run by every system.
        whole: each system's lists from the whole catalogue, for all queries.
        events: the events of the histories.
        exclude_seen: whether lists leave out the history.
        resamples: bootstrap samples of the intervals.
        seed: of the bootstrap.
        level: share of resampled means inside an interval.
    """
    within = {name: ranked_values(answer.items, part.queries) for name, answer in part.answers.items()}
    full = {name: ranked_values(whole[name].items[part.index], part.queries) for name in within}
    everything = np.ones(len(part.allowed), dtype=np.bool_)
    systems = {name: {"within": means(within[name]), "full": means(full[name])} for name in within}
    systems[RANDOM] = {
        where: means(random_values(events, part.queries, allowed, exclude_seen))
        for where, allowed in (("within", part.allowed), ("full", everything))
    }
    confidence: dict[str, dict[str, list[float]]] = {}
    for name, values in within.items():
        low, high = bootstrap_intervals(np.stack([*values.values()], axis=1), resamples, seed, level)
        confidence[name] = {m: [float(a), float(b)] for m, a, b in zip(values, low, high, strict=True)}
    return {
        "about": part.about,
        "items": int(part.allowed.sum()),
        "queries": len(part.queries),
        "targets": len(part.queries.targets),
        "systems": systems,
        "confidence": confidence,
    }
