"""A trace: what each stage of a list did with one item, from the stages that made the list.

The list is made by `Recommender.recommend`, as a server makes it, and its stages are watched; nothing of the
path is computed a second time by other code, except what no stage computes: the places beyond a quota, and
the score of an item that was no candidate.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ranking.insight.attribution import Attribution, attribute
from ranking.insight.obstacles import Obstacle, is_pinned, obstacles
from ranking.insight.question import Question
from ranking.insight.slate_steps import Step, slate_steps
from ranking.insight.source_places import SourcePlace, source_places
from ranking.insight.standing import Standing, scored_with, standing
from ranking.recommender import Recommender
from ranking.stages import Stages
from ranking.types import RecommendedItem


class Stage(Enum):
    """Where an item was lost."""

    limits = "limits"
    sources = "sources"
    ranking = "ranking"
    offsets = "offsets"
    """By the ranking head it would be in the list; novelty or the text query put others ahead."""
    rerank = "rerank"


@dataclass(frozen=True)
class Trace:
    """What each stage did with one item."""

    question: Question
    items: tuple[RecommendedItem, ...]
    """The list."""
    place: int | None
    """Of the item in the list, from 1; None where it is not in it."""
    lost: Stage | None
    """The first stage after which the item could not be in the list any more; None where it is in it."""
    pinned: bool
    """Whether a rule fixes its position, on this page or a later one."""
    obstacles: tuple[Obstacle, ...]
    """Rules that keep it out; the later stages then show what would follow if it alone were allowed."""
    sources: tuple[SourcePlace, ...]
    candidate: bool
    """Whether a source proposed it, or a pin made it a candidate."""
    assumed: str | None
    """The source that its scores assume to have proposed it; None for a candidate, and where none could."""
    standing: Standing
    attribution: Attribution | None
    steps: tuple[Step, ...]
    """Of re-ranking; as if the item were a candidate."""
    rounds: int
    """Retrievals that made the list; more than 1 where caps left it short."""

    @property
    def allowed(self) -> bool:
        """Whether nothing keeps the item out before retrieval."""
        return not self.obstacles


def trace(recommender: Recommender, question: Question) -> Trace:
    """Return what each stage of a list did with an item."""
    row, rounds = question.row, list[Stages]()
    [answer] = recommender.recommend([question.request], rounds.append)
    listed = [item.row for item in answer.items]
    place = listed.index(row) + 1 if row in listed else None
    stages = _decisive(rounds, row)
    found = obstacles(question, recommender.hidden)
    pinned = is_pinned(question, recommender.hidden)
    sources = source_places(recommender, stages, row)
    candidate = _is_candidate(stages, row)
    mask, assumed = _mask(recommender, sources)
    scored = scored_with(recommender, stages, row, mask)
    own = standing(recommender, stages, scored, row)
    steps = slate_steps(recommender, stages, scored.ranked, row, question.rules.before)
    lost = (
        None if place is not None else _lost(bool(found), candidate, pinned, own, steps, question.request.k)
    )
    return Trace(
        question=question,
        items=answer.items,
        place=place,
        lost=lost,
        pinned=pinned,
        obstacles=found,
        sources=sources,
        candidate=candidate,
        assumed=None if candidate else assumed,
        standing=own,
        attribution=attribute(recommender, stages, scored, row),
        steps=steps,
        rounds=len(rounds),
    )


def place_in(recommender: Recommender, question: Question) -> int | None:
    """Return the place of an item in a list, from 1; None where it is not in it."""
    [answer] = recommender.recommend([question.request])
    return next((n for n, item in enumerate(answer.items, start=1) if item.row == question.row), None)


def _decisive(rounds: list[Stages], row: int) -> Stages:
    """Return the retrieval that placed the item, else the first that had it as a candidate, or the first."""
    for stages in rounds:
        rows = stages.retrieved.candidates.rows[0]
        if any(rows[item.candidate] == row for item in stages.slates[0].items):
            return stages
    return next((stages for stages in rounds if _is_candidate(stages, row)), rounds[0])


def _is_candidate(stages: Stages, row: int) -> bool:
    return bool((stages.retrieved.candidates.rows[0] == row).any())


def _mask(recommender: Recommender, sources: tuple[SourcePlace, ...]) -> tuple[int, str | None]:
    """Return the source mask to score an item with that is no candidate, and the source that this assumes.

    Those that would propose it if it were allowed; else the one whose quota it misses by the smallest factor.
    """
    bits = {name: 1 << bit for bit, name in enumerate(recommender.sources.names)}
    proposing = [found for found in sources if found.proposes]
    if proposing:
        return sum(bits[found.source] for found in proposing), proposing[0].source
    near = [found for found in sources if found.place is not None]
    if not near:
        return 0, None
    nearest = min(near, key=lambda found: (found.place or 0) / found.quota)
    return bits[nearest.source], nearest.source


def _lost(
    blocked: bool, candidate: bool, pinned: bool, own: Standing, steps: tuple[Step, ...], k: int
) -> Stage:
    if blocked:
        return Stage.limits
    if not candidate:
        return Stage.sources
    if pinned or any(step.place is not None and step.place <= k for step in steps):
        return Stage.rerank
    return Stage.offsets if own.head_place <= k else Stage.ranking
