"""Loss by stage: what became of each target on its way through a recommender, and where it was lost.

A target is lost when it is not in the first ten. Every lost target is assigned to the first stage without
which it could not have been there, so that the stages add up to the lost targets exactly:

1. `filtered`: the limits of the list exclude it (a seen item, a deleted one).
2. `approximate_search`: no source proposed it, but one would have with exact search.
3. `never_proposed`: no source proposed it, and exact search would not have changed that.
4. `ranked_away`: proposed, but not among the first ten by the ranking head.
5. `reranked_away`: among these, but moved out of the first ten by novelty or diversity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from features.data.dataset import BoolArray, IntArray, LongArray
from features.data.splits import Queries
from ranking.evaluation.metrics import HEADLINE, target_ranks


class Outcome(IntEnum):
    """What became of a target; all but the first are stages at which it was lost."""

    found = 0
    filtered = 1
    never_proposed = 2
    approximate_search = 3
    ranked_away = 4
    reranked_away = 5


LOST = tuple(outcome for outcome in Outcome if outcome is not Outcome.found)
"""The stages of loss, in order."""


@dataclass(frozen=True)
class TargetPaths:
    """The way of each target through a system."""

    outcomes: npt.NDArray[np.int8]  # [total targets] codes of `Outcome`
    proposed_by: npt.NDArray[np.int16]  # [total targets] masks of sources
    sources: tuple[str, ...]
    """Names of the sources, in the order of their bits in a mask."""
    exact: bool
    """Whether every search was exact, so that none could be lost to an approximate one."""

    @classmethod
    def joined(cls, parts: Sequence[TargetPaths]) -> TargetPaths:
        """Return the paths of several blocks of queries as one."""
        return cls(
            np.concatenate([part.outcomes for part in parts]),
            np.concatenate([part.proposed_by for part in parts]),
            parts[0].sources,
            all(part.exact for part in parts),
        )


def target_outcomes(
    queries: Queries,
    final: IntArray,
    by_head: IntArray,
    union: IntArray,
    permitted: BoolArray,
    found_exactly: BoolArray,
) -> npt.NDArray[np.int8]:
    """Return the code of `Outcome` of each target, [total targets].

    Args:
        queries: the queries with their targets.
        final: [queries, depth] lists as they are shown.
        by_head: [queries, depth] candidates by the ranking head alone, best first.
        union: [queries, n] candidates.
        permitted: [total targets] whether the limits allow the target.
        found_exactly: [total targets] whether a source proposes the target with exact search; read only where
            no source has proposed it.
    """
    outcomes = np.full(len(queries.targets), Outcome.ranked_away, dtype=np.int8)
    outcomes[target_ranks(by_head[:, :HEADLINE], queries) > 0] = Outcome.reranked_away
    missing = target_ranks(union, queries) == 0
    outcomes[missing] = Outcome.never_proposed
    outcomes[missing & found_exactly] = Outcome.approximate_search
    outcomes[missing & ~permitted] = Outcome.filtered
    outcomes[target_ranks(final[:, :HEADLINE], queries) > 0] = Outcome.found
    return outcomes


def waterfall(outcomes: npt.NDArray[np.int8], owners: LongArray) -> dict[str, Any]:
    """Return how many targets were found, and lost at each stage, also per 100 lost ones.

    `no_room` counts lost targets that no list of ten could hold, those of a query beyond its tenth: a part of
    the loss that no stage is to blame for.

    Args:
        outcomes: codes of `Outcome`, [targets].
        owners: query of each target, [targets].
    """
    counts = np.bincount(outcomes, minlength=len(Outcome))
    lost = int(counts.sum() - counts[Outcome.found])
    return {
        "targets": int(counts.sum()),
        "found": int(counts[Outcome.found]),
        "lost": lost,
        "no_room": int(np.maximum(np.bincount(owners) - HEADLINE, 0).sum()),
        "stages": {stage.name: int(counts[stage]) for stage in LOST},
        "per_100_lost": {stage.name: 100 * int(counts[stage]) / lost if lost else None for stage in LOST},
    }


def source_shares(paths: TargetPaths) -> dict[str, dict[str, int]]:
    """Return what each source contributed, `{source: {proposed, only, proposed_found, only_found}}`.

    Targets that it proposed and targets that no other source proposed; of both, those in the first ten.
    """
    found = paths.outcomes == Outcome.found
    shares = {}
    for bit, name in enumerate(paths.sources):
        own = (paths.proposed_by >> bit & 1).astype(np.bool_)
        if not own.any():
            continue
        only = paths.proposed_by == 1 << bit
        shares[name] = {
            "proposed": int(own.sum()),
            "only": int(only.sum()),
            "proposed_found": int((own & found).sum()),
            "only_found": int((only & found).sum()),
        }
    return shares


def loss_line(summary: Mapping[str, Any]) -> str:
    """Return one sentence on where targets are lost, of a part of `loss_summary`."""
    shares = summary["per_100_lost"]
    words = {"filtered": "excluded by the list's limits", "approximate_search": "lost to approximate search"}
    parts = [
        f"{shares[stage.name]:.0f} {words.get(stage.name, stage.name.replace('_', ' '))}"
        for stage in LOST
        if shares[stage.name]
    ]
    lost = f"{summary['lost']:,} of {summary['targets']:,} targets are not in the first {HEADLINE}"
    return f"{lost}; of 100 lost: {', '.join(parts)}" if parts else f"{lost}"


def loss_summary(
    paths: TargetPaths | None, queries: Queries, slices: Mapping[str, BoolArray]
) -> dict[str, Any] | None:
    """Return the waterfall of all targets and of each slice; None for a system without stages.

    Args:
        paths: of the system.
        queries: the queries with their targets.
        slices: mask of the targets of each slice, [total targets].
    """
    if paths is None:
        return None
    owners = np.repeat(np.arange(len(queries)), np.diff(queries.target_offsets))
    return {
        "k": HEADLINE,
        "search": "exact" if paths.exact else "approximate",
        "all": waterfall(paths.outcomes, owners),
        "slices": {name: waterfall(paths.outcomes[mask], owners[mask]) for name, mask in slices.items()},
        "sources": source_shares(paths),
    }
