"""Changes of a request, each a single one, that may bring an item into a list or take it out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

import numpy as np

from conf.schema import CandidateConfig
from ranking.insight.obstacles import without_caps
from ranking.insight.question import Question
from ranking.insight.source_places import SourcePlace
from ranking.recommender import Recommender
from ranking.rerank.rules import Boost, Pin, Rules
from ranking.types import History, Request

LENGTHS: Final = (12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300, 500)
"""Lengths of the list that are tried."""
STRENGTHS: Final = (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Strengths of a boost of the item."""
BUDGETS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Budgets of novelty."""
DIVERSITIES: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
MOST_QUOTA: Final = 5000
"""Largest quota that is tried."""
COMPANIONS: Final = 10
"""Other items that are tried as an additional event of the shopper."""


class Kind(Enum):
    """What is changed."""

    nothing = "nothing"
    """Beyond lifting the rules that keep the item out."""
    k = "k"
    diversity = "diversity"
    novelty = "novelty"
    intent = "intent"
    cap = "cap"
    pin = "pin"
    other_boost = "other_boost"
    exploration = "exploration"
    boost = "boost"
    quota = "quota"
    event = "event"
    """The shopper chooses the item itself."""
    companion = "companion"
    """The shopper chooses another item."""
    without_event = "without_event"
    """The history lacks the events of an item."""


@dataclass(frozen=True)
class Change:
    """One change of a question."""

    kind: Kind
    value: float = 0.0
    """The new length, strength, budget, quota or limit; 0 removes a rule."""
    name: str = ""
    """Setting of a quota, attribute of a cap, filter of a boost, or event kind."""
    number: int = 0
    """Of the cap, boost or pin, from 0."""
    row: int = -1
    """The other item: pinned, chosen, or taken out of the history."""
    question: Question | None = field(default=None, repr=False, compare=False)
    """The question with the change."""
    config: CandidateConfig | None = field(default=None, repr=False, compare=False)
    """Quotas in place of the model's."""
    boost: float = 0.0
    """Strength of a boost of the item that goes with a quota; 0 for none."""


def changes_of(
    recommender: Recommender, question: Question, sources: Sequence[SourcePlace], kinds: Sequence[str]
) -> list[list[Change]]:
    """Return the changes to try, in lists of which the first that works is the smallest.

    Args:
        recommender: that made the list.
        question: the item and the request, which allows it.
        sources: the item's places in the sources.
        kinds: event kinds, strongest first.

    """
    return [
        _lengths(recommender, question),
        _diversities(question),
        _novelties(recommender, question),
        _without_intent(question),
        *_rules(question),
        _boosts(recommender, question),
        *quotas(recommender, question, sources),
        _own_events(recommender, question, kinds),
        _companions(recommender, question, kinds),
    ]


def _asked(question: Question, request: Request) -> Question:
    return replace(question, request=request)


def _lengths(recommender: Recommender, question: Question) -> list[Change]:
    k = question.request.k
    lengths = [n for n in LENGTHS if k < n <= recommender.items]
    return [Change(Kind.k, n, question=longer(question, n)) for n in lengths]


def longer(question: Question, k: int) -> Question:
    """Return the question about a list of another length."""
    return _asked(question, replace(question.request, k=k))


def _diversities(question: Question) -> list[Change]:
    now = question.request.diversity
    others = sorted((d for d in DIVERSITIES if d != now), key=lambda d: abs(d - now))
    return [
        Change(Kind.diversity, d, question=_asked(question, replace(question.request, diversity=d)))
        for d in others
    ]


def _novelties(recommender: Recommender, question: Question) -> list[Change]:
    if recommender.novelty is None or not recommender.untrained[question.row]:
        return []
    given = question.request.novelty
    now = recommender.novelty_budget if given is None else given
    return [
        Change(Kind.novelty, b, question=_asked(question, replace(question.request, novelty=b)))
        for b in BUDGETS
        if b > now
    ]


def _without_intent(question: Question) -> list[Change]:
    if question.request.intent is None:
        return []
    request = replace(question.request, intent=None, query_text="")
    return [Change(Kind.intent, question=_asked(question, request))]


def _rules(question: Question) -> list[list[Change]]:
    """Return the changes of each rule of the request: caps loosened, others removed."""
    rules, found = question.rules, list[list[Change]]()
    for number, cap in enumerate(rules.caps):
        name = question.caps[number] if question.caps else ""
        wider = []
        for limit in range(cap.limit + 1, cap.limit + 6):
            caps = (*rules.caps[:number], replace(cap, limit=limit), *rules.caps[number + 1 :])
            changed = _with_rules(question, replace(rules, caps=caps))
            wider.append(Change(Kind.cap, limit, name, number, question=changed))
        wider.append(Change(Kind.cap, 0, name, number, question=without_caps(question, {number})))
        found.append(wider)
    for number, boost in enumerate(rules.boosts):
        kept = tuple(b for b in rules.boosts if b is not boost)
        name = question.boosts[number] if question.boosts else ""
        changed = replace(
            _with_rules(question, replace(rules, boosts=kept)), boosts=_but(question.boosts, number)
        )
        found.append([Change(Kind.other_boost, 0, name, number, question=changed)])
    for number, pin in enumerate(rules.pins):
        if pin.row != question.row:
            pins = tuple(p for p in rules.pins if p is not pin)
            changed = _with_rules(question, replace(rules, pins=pins))
            found.append([Change(Kind.pin, 0, number=number, row=pin.row, question=changed)])
    if rules.exploration > 0:
        found.append(
            [Change(Kind.exploration, question=_with_rules(question, replace(rules, exploration=0.0)))]
        )
    return found


def _but(names: tuple[str, ...], number: int) -> tuple[str, ...]:
    return tuple(name for n, name in enumerate(names) if n != number)


def _with_rules(question: Question, rules: Rules) -> Question:
    return _asked(question, replace(question.request, rules=rules))


def _boosts(
    recommender: Recommender, question: Question, strengths: Sequence[float] = STRENGTHS
) -> list[Change]:
    itself = np.zeros(recommender.items, dtype=np.bool_)
    itself[question.row] = True
    return [Change(Kind.boost, s, question=boosted_by(question, Boost(itself, s))) for s in strengths]


def weaker_boosts(recommender: Recommender, question: Question, strength: float) -> list[Change]:
    """Return boosts of the item above the next weaker one of `STRENGTHS`, in steps of .01, weakest first."""
    below = max((s for s in STRENGTHS if s < strength), default=0.0)
    steps = [n / 100 for n in range(round(100 * below) + 1, round(100 * strength) + 1)]
    return _boosts(recommender, question, steps)


def boosted_by(question: Question, boost: Boost) -> Question:
    """Return the question with one more boost, without a text for it."""
    rules = replace(question.rules, boosts=(*question.rules.boosts, boost))
    return replace(_with_rules(question, rules), boosts=(*question.boosts, "") if question.boosts else ())


def pinned_at(question: Question, position: int) -> Question:
    """Return the question with the item pinned."""
    rules = replace(question.rules, pins=(*question.rules.pins, Pin(question.row, position)))
    return _with_rules(question, rules)


def quotas(
    recommender: Recommender, question: Question, sources: Sequence[SourcePlace]
) -> list[list[Change]]:
    """Return, of each source that does not propose the item, the quotas at which it might."""
    found = []
    for source in sources:
        if source.place is None or source.proposes or source.setting is None:
            continue
        tried = []
        for factor in (1, 2):  # a source that mixes two searches may need more than the place
            quota = factor * source.place
            if quota <= MOST_QUOTA:
                config = replace(recommender.config, **{source.setting: quota})
                tried.append(Change(Kind.quota, quota, source.setting, question=question, config=config))
        found.append(tried)
    return found


def boosted_quotas(recommender: Recommender, change: Change) -> list[Change]:
    """Return a change of a quota together with boosts of the item, weakest first."""
    assert change.question is not None
    return [
        replace(b, kind=Kind.quota, value=change.value, name=change.name, config=change.config, boost=b.value)
        for b in _boosts(recommender, change.question)
    ]


def _own_events(recommender: Recommender, question: Question, kinds: Sequence[str]) -> list[Change]:
    """Return events of the item itself, weakest kind first; none where seen items are left out."""
    if question.request.exclude_seen:
        return []
    codes = sorted({0, len(kinds) - 1}, reverse=True)
    return [_event(question, Kind.event, question.row, code, kinds) for code in codes]


def _companions(recommender: Recommender, question: Question, kinds: Sequence[str]) -> list[Change]:
    """Return an event of each item that leads to the item: often chosen beside it, or near by text."""
    row, arrays = question.row, recommender.arrays
    together = arrays.statistics.together
    items, columns = np.nonzero(together.ids == row)
    strongest = items[np.argsort(-together.weights[items, columns], kind="stable")]
    near = arrays.text_near.ids[row]
    leads = [*strongest[: COMPANIONS - 3].tolist(), *near[near >= 0].tolist()]
    hidden = recommender.hidden
    alive = [i for i in dict.fromkeys(leads) if i != row and (hidden is None or not hidden[i])]
    codes = sorted({0, len(kinds) - 1}, reverse=True)
    return [_event(question, Kind.companion, i, c, kinds) for i in alive[:COMPANIONS] for c in codes]


def _event(question: Question, kind: Kind, row: int, code: int, kinds: Sequence[str]) -> Change:
    history, now = question.request.history, question.request.now
    longer_history = History(
        np.append(history.items, np.int32(row)),
        np.append(history.kinds, np.int8(code)),
        np.append(history.times, np.int64(now)),
    )
    changed = _asked(question, replace(question.request, history=longer_history))
    return Change(kind, name=kinds[code], row=row, question=changed)


def without_event(question: Question, row: int) -> Change:
    """Return the change that takes an item out of the history."""
    history = question.request.history
    keep = history.items != row
    shorter = History(history.items[keep], history.kinds[keep], history.times[keep])
    changed = _asked(question, replace(question.request, history=shorter))
    return Change(Kind.without_event, row=row, question=changed)
