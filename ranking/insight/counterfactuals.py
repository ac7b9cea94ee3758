"""What would have to change: changes that bring an item into a list, each found by making the list anew.

Every place that is reported comes from a list that was really made, alone and not in a batch, so that a
server answers the changed request in the same way. Changes are searched in a defined set,
`ranking.insight.changes`; where none of them works, that is the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, replace

from conf.schema import CandidateConfig
from ranking.insight.changes import (
    Change,
    Kind,
    boosted_quotas,
    changes_of,
    longer,
    pinned_at,
    quotas,
    weaker_boosts,
    without_event,
)
from ranking.insight.history_effect import HistoryEffect
from ranking.insight.obstacles import Obstacle, without
from ranking.insight.question import Question
from ranking.insight.source_places import SourcePlace
from ranking.insight.trace import Trace, place_in
from ranking.recommender import Recommender


@dataclass(frozen=True)
class Outcome:
    """A change, and the place of the item in the list that is made with it."""

    change: Change
    place: int | None
    """From 1; None where the list does not have it."""


@dataclass(frozen=True)
class Counterfactuals:
    """What brings an item into a list, or takes it out of it."""

    lifted: tuple[Obstacle, ...]
    """Rules that were lifted for all changes; empty where none keeps the item out."""
    lifted_place: int | None
    """Place with these rules lifted and nothing else changed; None where that does not suffice, and where
    nothing was lifted."""
    liftable: bool
    """False for a deleted item and one of an earlier page: no change of the request brings it in."""
    outcomes: tuple[Outcome, ...]
    """For an item outside the list, changes that bring it in, the smallest of each sort; for an item in it,
    changes that move or drop it."""
    tried: int
    """Lists that were made."""
    pinned: int | None = None
    """Where no change works, the place of the item with a pin at the first position."""


def counterfactuals(
    recommender: Recommender,
    found: Trace,
    effects: Sequence[HistoryEffect],
    kinds: Sequence[str],
) -> Counterfactuals:
    """Search for the changes that bring the item of a trace into its list, or take it out.

    Args:
        recommender: that made the list.
        found: the trace.
        effects: what the events of the history do for the item, from the request without obstacles.
        kinds: event kinds of the model, strongest first.

    """
    if found.place is not None:
        return _holding(recommender, found, effects)
    base = without(found.question, found.obstacles)
    if base is None:
        return Counterfactuals(found.obstacles, None, False, (), 0)
    place = place_in(recommender, base) if found.obstacles else None
    if place is not None:
        return Counterfactuals(found.obstacles, place, True, (), 1)
    search = _Search(recommender)
    outcomes = []
    for tried in changes_of(recommender, base, found.sources, kinds):
        outcome = search.first(tried)
        if outcome is not None:
            outcomes.append(outcome)
    outcomes = [_weakest(search, recommender, base, _shortest(search, base, o)) for o in outcomes]
    if not outcomes and not found.candidate:
        outcomes += filter(None, [_boosted_quota(search, recommender, base, found.sources)])
    gone = sorted((e for e in effects if e.place is not None), key=lambda e: e.place or 0)
    outcomes += filter(None, [search.first([without_event(base, effect.row)]) for effect in gone[:1]])
    pinned = None if outcomes else pinned_place(recommender, base)
    return Counterfactuals(found.obstacles, None, True, tuple(outcomes), search.made, pinned)


def pinned_place(recommender: Recommender, question: Question) -> int | None:
    """Return the place of the item pinned at the first position of the page."""
    return place_in(recommender, pinned_at(question, question.rules.before + 1))


class _Search:
    """Makes the lists of changes, and counts them."""

    def __init__(self, recommender: Recommender) -> None:
        self._recommender = recommender
        self.made = 0
        """Lists made so far."""

    def places(self, changes: Sequence[Change]) -> list[int | None]:
        """Return the place of each change's item, made as one batch where the quotas are the same."""
        config = changes[0].config if changes else None
        if config is not None:
            return [self.alone(change).place for change in changes]
        questions = [_question(change) for change in changes]
        self.made += len(questions)
        answers = self._recommender.recommend([question.request for question in questions])
        return [
            next((n for n, item in enumerate(answer.items, start=1) if item.row == question.row), None)
            for question, answer in zip(questions, answers, strict=True)
        ]

    def alone(self, change: Change) -> Outcome:
        """Return the outcome of a change whose list is made alone."""
        self.made += 1
        return Outcome(change, place_in(with_quotas(self._recommender, change.config), _question(change)))

    def first(self, changes: Sequence[Change]) -> Outcome | None:
        """Return the first change that brings the item in; of events the one that brings it furthest up."""
        working = [(c, p) for c, p in zip(changes, self.places(changes), strict=True) if p is not None]
        if changes and changes[0].kind is Kind.companion:
            working.sort(key=lambda pair: pair[1])
        for change, _ in working:
            outcome = self.alone(change)
            if outcome.place is not None:
                return outcome
        return None


def _question(change: Change) -> Question:
    assert change.question is not None
    return change.question


def with_quotas(recommender: Recommender, config: CandidateConfig | None) -> Recommender:
    """Return the recommender with other quotas of the sources, which shares everything else."""
    if config is None:
        return recommender
    other = copy(recommender)
    other.config = config
    return other


def _shortest(search: _Search, base: Question, outcome: Outcome) -> Outcome:
    """Return the shortest list, for a longer list that has the item: as long as the item's place."""
    if outcome.change.kind is not Kind.k:
        return outcome
    while outcome.place is not None and base.request.k < outcome.place < outcome.change.value:
        k = outcome.place
        shorter = search.alone(replace(outcome.change, value=k, question=longer(base, k)))
        if shorter.place is None:
            return outcome
        outcome = shorter
    return outcome


def _weakest(search: _Search, recommender: Recommender, base: Question, outcome: Outcome) -> Outcome:
    """Return the weakest boost to two digits, for a boost that brings the item in."""
    if outcome.change.kind is not Kind.boost:
        return outcome
    return search.first(weaker_boosts(recommender, base, outcome.change.value)) or outcome


def _boosted_quota(
    search: _Search, recommender: Recommender, base: Question, sources: Sequence[SourcePlace]
) -> Outcome | None:
    """Return the larger quota that needs the smallest boost of the item besides; None where none suffices."""
    found: list[Outcome] = []
    for tries in quotas(recommender, base, sources):
        for change in tries[:1]:
            outcome = search.first(boosted_quotas(recommender, change))
            if outcome is not None:
                found.append(outcome)
    return min(found, key=lambda o: (o.change.boost, o.change.value), default=None)


def _holding(recommender: Recommender, found: Trace, effects: Sequence[HistoryEffect]) -> Counterfactuals:
    """Return the changes that move an item down, or drop it."""
    question, search = found.question, _Search(recommender)
    tried: list[Change] = []
    given = question.request.novelty
    budget = recommender.novelty_budget if given is None else given
    if found.standing.novelty > 0 and budget > 0:
        unpromoted = replace(question, request=replace(question.request, novelty=0.0))
        tried.append(Change(Kind.novelty, 0.0, question=unpromoted))
    tried += [
        change
        for tries in changes_of(recommender, question, (), ("",))
        for change in tries[-1:]
        if change.kind in (Kind.intent, Kind.other_boost, Kind.exploration)
    ]
    tried += _switched_off(recommender, question, found.sources)
    outcomes = [search.alone(change) for change in tried]
    outcomes = [o for o in outcomes if o.place is None or o.place > (found.place or 0)]
    losing = [e for e in effects if e.place is None or e.place > (found.place or 0)]
    losing.sort(key=lambda e: -(e.place or len(found.items) + 1))
    for effect in losing[:3]:
        outcome = search.alone(without_event(question, effect.row))
        if outcome.place is None or outcome.place > (found.place or 0):
            outcomes.append(outcome)
    return Counterfactuals((), None, True, tuple(outcomes), search.made)


def _switched_off(
    recommender: Recommender, question: Question, sources: Sequence[SourcePlace]
) -> list[Change]:
    """Return the removal of the quota of a source that alone proposes the item; none where several do."""
    proposing = [source for source in sources if source.proposes]
    if len(proposing) != 1 or proposing[0].setting is None:
        return []
    setting = proposing[0].setting
    config = replace(recommender.config, **{setting: 0})
    return [Change(Kind.quota, 0, setting, question=question, config=config)]
