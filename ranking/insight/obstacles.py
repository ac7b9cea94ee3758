"""The first stage of a trace: the rules that keep an item out of a list before anything is retrieved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from features.data.dataset import BoolArray
from ranking.insight.question import Question
from ranking.rerank.rules import full_values, pending, values_at


class Rule(Enum):
    """A rule that can keep an item out."""

    deleted = "deleted"
    """The item was deleted since the bundle was made."""
    filter = "filter"
    """It does not pass a clause of the request's filter."""
    excluded = "excluded"
    """The request excludes it by id."""
    shown = "shown"
    """It stands on an earlier page of the list."""
    seen = "seen"
    """It is in the history, and the request leaves such items out."""
    cap = "cap"
    """Pinned items and earlier pages have exhausted a cap for its value."""


@dataclass(frozen=True)
class Obstacle:
    """A rule that keeps the item out."""

    rule: Rule
    number: int = 0
    """Of the clause or the cap, from 0."""
    detail: str = ""
    """Text of the clause, or the cap's attribute."""


def is_pinned(question: Question, hidden: BoolArray | None) -> bool:
    """Return whether a rule fixes the position of the item, on this page or a later one."""
    request = question.request
    pins = pending(question.rules, request.exclude, request.allowed, hidden)
    return any(pin.row == question.row for pin in pins)


def obstacles(question: Question, hidden: BoolArray | None) -> tuple[Obstacle, ...]:
    """Return everything that keeps the item out, in the order of the rules; nothing for a pinned item.

    Args:
        question: the item and the request.
        hidden: [items] mask of deleted items; None for none.

    """
    if is_pinned(question, hidden):
        return ()
    row, request, rules = question.row, question.request, question.rules
    found = []
    if hidden is not None and row < len(hidden) and hidden[row]:
        found.append(Obstacle(Rule.deleted))
    failing = [n for n, clause in enumerate(question.clauses) if not clause.passes[row]]
    found += [Obstacle(Rule.filter, n, question.clauses[n].text) for n in failing]
    if not question.clauses and request.allowed is not None and not request.allowed[row]:
        found.append(Obstacle(Rule.filter))
    if row in rules.shown:
        found.append(Obstacle(Rule.shown))
    elif row in request.exclude:
        found.append(Obstacle(Rule.excluded))
    if request.exclude_seen and row in request.history.items:
        found.append(Obstacle(Rule.seen))
    pins = pending(rules, request.exclude, request.allowed, hidden)
    taken = np.concatenate([rules.shown, np.array([pin.row for pin in pins], dtype=np.int32)])
    for number, cap in enumerate(rules.caps):
        code = values_at(cap.codes, np.array([row], dtype=np.int32), -1)[0]
        if code in full_values(cap, taken):
            found.append(Obstacle(Rule.cap, number, question.caps[number] if question.caps else ""))
    return tuple(found)


def without(question: Question, found: tuple[Obstacle, ...]) -> Question | None:
    """Return the question without the rules that keep the item out; None where one cannot be lifted.

    What is lifted is the least that lets the item through: the failing clauses and no others.
    """
    rules = {obstacle.rule for obstacle in found}
    if rules & {Rule.deleted, Rule.shown}:
        return None
    lifted = question
    if Rule.filter in rules:
        failing = {obstacle.number for obstacle in found if obstacle.rule is Rule.filter}
        lifted = lifted.within([c for n, c in enumerate(question.clauses) if n not in failing])
    request = lifted.request
    if Rule.excluded in rules:
        request = replace(request, exclude=request.exclude[request.exclude != question.row])
    if Rule.seen in rules:
        request = replace(request, exclude_seen=False)
    lifted = replace(lifted, request=request)
    full = {obstacle.number for obstacle in found if obstacle.rule is Rule.cap}
    return without_caps(lifted, full) if full else lifted


def without_caps(question: Question, numbers: set[int]) -> Question:
    """Return the question without some caps."""
    kept = [n for n in range(len(question.rules.caps)) if n not in numbers]
    rules = replace(question.rules, caps=tuple(question.rules.caps[n] for n in kept))
    names = tuple(question.caps[n] for n in kept) if question.caps else ()
    return replace(question, request=replace(question.request, rules=rules), caps=names)
