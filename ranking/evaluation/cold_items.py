"""Cold items, not bought before a cut, ranked among themselves and in the full catalogue.

In the full catalogue a cold item competes with items whose buyers are known, and hardly any list holds one.
Within the cold catalogue every system starts from little but what an item says, so this measures what was
learned about texts. Which items are cold is decided by the events before the cut alone,
whatever the queries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from features.data.dataset import BoolArray, Dataset, Events, LongArray
from features.data.histories import histories_of
from features.data.splits import Queries
from ranking.baselines.lists import prefix_positions
from ranking.evaluation.list_providers import Answer, ListProvider
from ranking.evaluation.metrics import ValueArray, means
from ranking.evaluation.significance import bootstrap_intervals
from ranking.evaluation.slices import restrict_targets
from ranking.evaluation.stage_recall import HEADLINE, ranked_values

RANDOM = "random"
"""Name of the expectation over random orders, beside the systems."""


@dataclass(frozen=True)
class ColdPart:
    """A cold catalogue, the queries with targets in it, and what systems answered to those."""

    name: str
    about: str
    """One phrase for readers of the report."""
    allowed: BoolArray  # [items]
    queries: Queries
    """Queries with only their cold targets."""
    index: LongArray  # [part] position of each query in the whole
    answers: dict[str, Answer] = field(default_factory=dict)
    """System -> its lists from the cold catalogue alone; filled by `ask`."""

    def ask(self, system: str, lister: ListProvider) -> None:
        """Ask a system for lists of cold items."""
        self.answers[system] = lister(self.queries, self.allowed)


def cold_parts(
    dataset: Dataset, queries: Queries, train_end: LongArray, known_end: LongArray
) -> list[ColdPart]:
    """Cut out the queries for cold items.

    Args:
        dataset: the dataset.
        queries: validation or test queries.
        train_end: [users] where training ends and validation starts; a refit has learned what came then.
        known_end: [users] up to where statistics and baselines may count when these queries are asked.

    Returns:
        `no_training_event`; and `no_event`, where more is known when the lists are asked for.
    """

    def part(name: str, about: str, end: LongArray) -> ColdPart:
        allowed = np.ones(len(dataset.catalogue), dtype=np.bool_)
        allowed[dataset.events.item[prefix_positions(dataset.events, end)]] = False
        return ColdPart(name, about, allowed, *restrict_targets(queries, allowed[queries.targets]))

    parts = [part("no_training_event", "items without an event before validation", train_end)]
    if not np.array_equal(train_end, known_end):
        parts.append(part("no_event", "items without any event", known_end))
    return parts


def random_values(
    events: Events, queries: Queries, allowed: BoolArray, exclude_seen: bool, k: int = HEADLINE
) -> dict[str, ValueArray]:
    """Return the expected recall@k and ndcg@k of lists in random order, in closed form.

    Each of the first min(k, n) places of n items holds a given item with probability 1 / n; recall and DCG
    are sums over places, so their expectations need no independence.

    Args:
        events: what histories are read from.
        queries: who is asked, with the targets that count.
        allowed: [items] what is listed.
        exclude_seen: items of the history cannot be listed; a target among them cannot be hit.
        k: list length.

    Returns:
        `recall@k` and `ndcg@k`, [queries] each; 0 where nothing can be listed.
    """
    relevant = np.diff(queries.target_offsets).astype(np.float64)
    listed = np.full(len(queries), float(allowed.sum()))
    reachable = relevant.copy()
    if exclude_seen:
        histories = histories_of(events, queries)
        seen = np.unique(histories.owners() * len(allowed) + histories.items)
        listed -= np.bincount((seen // len(allowed))[allowed[seen % len(allowed)]], minlength=len(queries))
        owner = np.repeat(np.arange(len(queries), dtype=np.int64), np.diff(queries.target_offsets))
        lost = np.isin(owner * len(allowed) + queries.targets, seen)
        reachable -= np.bincount(owner[lost], minlength=len(queries))
    gains = 1.0 / np.log2(np.arange(2, k + 2))
    best = np.concatenate([[0.0], np.cumsum(gains)])  # [k + 1] DCG of the first n places
    places = np.minimum(k, np.maximum(listed, 0)).astype(np.int64)
    chance = reachable / np.maximum(listed, 1.0)  # that a place holds a target
    ideal = best[np.minimum(relevant, k).astype(np.int64)]
    return {
        f"recall@{k}": chance * places / np.maximum(relevant, 1.0),
        f"ndcg@{k}": chance * best[places] / np.maximum(ideal, 1e-12),
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
    """Average a cold part: every system within the cold catalogue and, for the same targets, in the full one.

    Args:
        part: asked of every system already.
        whole: each system's lists from the whole catalogue, for all queries.
        events: what histories are read from.
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
