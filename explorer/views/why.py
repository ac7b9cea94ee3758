"""Why an item is in a shopper's list, why another is not, and what would change that."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from conf.errors import InputError
from explorer.context import ExplorerContext
from explorer.model import LoadedModel
from explorer.problems import PageError, unknown_item, unknown_shopper
from explorer.rendering import render
from explorer.scenarios import (
    parameters,
    read_scenario,
    rule_parameters,
    whole_number,
    why_address,
    without_entry,
)
from explorer.shoppers import Like
from explorer.view import Page
from explorer.views.shopper import stored_id
from ranking.insight.changes import Change, Kind
from ranking.insight.explanation import Explanation, explain_item
from ranking.insight.history_effect import HistoryEffect
from ranking.insight.scenario import Scenario, changed, resolve, without_obstacles
from ranking.insight.words import Names, Words, in_words
from ranking.types import History

MATCHES: Final = 20
"""Items that are offered for a text that is no id."""
BEYOND: Final = 4
"""How far behind the end of the list the item of an example stands."""
BAR: Final = 100
"""Half of the width of the bars' drawing, in its own units."""
_RULE_WORDS: Final = {
    "exclude": "without the item", "cap": "cap", "pin": "pin", "boost": "boost", "event": "further event",
    "without": "history without", "quota": "quota",
}  # fmt: skip


@dataclass(frozen=True)
class Bar:
    """One group of features, drawn to the left or to the right of the middle."""

    label: str
    points: float
    x: float
    """Left end, 0 to 200."""
    width: float
    features: tuple[tuple[str, float, float], ...]


@dataclass(frozen=True)
class ChangeLink:
    """A change, with the address of the explanation after it."""

    text: str
    place: int | None
    address: str


@dataclass(frozen=True)
class Assumption:
    """A rule or an assumption of the address, with the address without it."""

    text: str
    address: str


@dataclass(frozen=True)
class PastItem:
    """An item of the history, with the address of the explanation without it."""

    effect: HistoryEffect
    kind: str
    address: str


@dataclass(frozen=True)
class ListedItem:
    """An item of the list, with the address of its own explanation."""

    row: int
    score: float
    address: str


def why(request: Request, context: ExplorerContext) -> Response:
    """Show the form; with an item in the address also the explanation."""
    model, scenario = context.model(), read_scenario(request.query_params)
    user = request.query_params.get("user", "").strip()
    wanted = request.query_params.get("item", "").strip()
    example = 0
    if not wanted and (text := request.query_params.get("example", "").strip()):
        example = whole_number("example", text, 1, 10**6)
        user, wanted = _example(model, example, scenario)
    history = _history(context, model, user)
    values = {
        "model": model,
        "scenario": scenario,
        "user": user,
        "wanted": wanted,
        "hidden": rule_parameters(scenario),
        "options": dict(parameters(scenario)),
        "example": example,
    }
    if not wanted:
        return render(request, "why.html.jinja", explanation=None, matches=None, **values)
    if model.bundle.catalogue.row(wanted) is None:
        rows = model.items.find(wanted, MATCHES)
        if not rows:
            raise unknown_item(wanted, model.bundle.catalogue.ids, f"/why?user={quote(user)}&item={{}}")
        matches = [
            (model.items.card(row), why_address(user, model.bundle.catalogue.ids[row], scenario))
            for row in rows
        ]
        return render(request, "why.html.jinja", explanation=None, matches=matches, **values)
    explanation = _explained(model, history, wanted, scenario)
    names = Names(model.bundle.catalogue.ids, model.items.title)
    words = in_words(explanation, names)
    return render(
        request,
        "why.html.jinja",
        matches=None,
        explanation=explanation,
        words=words,
        card=model.items.card(explanation.trace.question.row),
        bars=_bars(explanation),
        bar=BAR,
        changes=_changes(explanation, words, user, scenario, names),
        assumptions=_assumptions(scenario, user, wanted),
        past=_past(explanation, user, wanted, scenario, names, model.bundle.kinds),
        listed=[
            ListedItem(item.row, item.score, why_address(user, names.ids[item.row], scenario))
            for item in explanation.trace.items
        ],
        now=explanation.trace.question.request.now,
        **values,
    )


def _example(model: LoadedModel, seed: int, scenario: Scenario) -> tuple[str, str]:
    """Return a shopper and an item that the list only just misses; empty texts without shoppers."""
    user = model.shoppers.draw(Like.loyal, seed)
    if user is None:
        return "", ""
    asked = resolve(
        model.bundle, model.shoppers.history(user), model.now, model.bundle.catalogue.ids[0], scenario
    )
    beyond = replace(asked.question.request, k=scenario.k + BEYOND, explain=False)
    [found] = asked.recommender.recommend([beyond])
    return user, model.bundle.catalogue.ids[found.items[-1].row] if found.items else ""


def _history(context: ExplorerContext, model: LoadedModel, user: str) -> History:
    """Return the stored history of a shopper; an empty one for a visitor.

    Raises:
        PageError: there is no such shopper.

    """
    if not user:
        return model.shoppers.history("")
    stored = stored_id(context, model, user)
    if model.shoppers.position(stored) is None:
        raise unknown_shopper(user, model.shoppers.ids, "/why?user={}")
    return model.shoppers.history(stored)


def _explained(model: LoadedModel, history: History, item: str, scenario: Scenario) -> Explanation:
    try:
        asked = resolve(model.bundle, history, model.now, item, scenario)
    except InputError as error:
        raise PageError(400, "This address has a wrong value", str(error)) from error
    return explain_item(asked.recommender, asked.question, model.bundle.kinds)


def _bars(explanation: Explanation) -> list[Bar]:
    found = explanation.trace.attribution
    if found is None:
        return []
    most = max((abs(share.points) for share in found.shares), default=0.0) or 1.0
    bars = []
    for share in found.shares:
        width = BAR * abs(share.points) / most
        x = BAR if share.points > 0 else BAR - width
        bars.append(Bar(share.label, share.points, round(x, 2), round(width, 2), share.features))
    return bars


def _changes(
    explanation: Explanation, words: Words, user: str, scenario: Scenario, names: Names
) -> list[ChangeLink]:
    found, changes = explanation.trace, explanation.changes
    item = names.ids[found.question.row]
    links = []
    for change in words.changes:
        if changes.lifted_place is not None:
            after = without_obstacles(scenario, changes.lifted, found.question, names.ids)
        else:
            after = changed(scenario, change.change, changes.lifted, found.question, names.ids)
        links.append(ChangeLink(change.text, change.place, why_address(user, item, after)))
    return links


def _assumptions(scenario: Scenario, user: str, item: str) -> list[Assumption]:
    counts: dict[str, int] = {}
    found = []
    for name, text in rule_parameters(scenario):
        number = counts.setdefault(name, 0)
        counts[name] += 1
        address = why_address(user, item, without_entry(scenario, name, number))
        found.append(Assumption(f"{_RULE_WORDS[name]} {text}", address))
    return found


def _past(
    explanation: Explanation, user: str, item: str, scenario: Scenario, names: Names, kinds: list[str]
) -> list[PastItem]:
    found, question = [], explanation.trace.question
    for effect in explanation.effects:
        after = changed(scenario, Change(Kind.without_event, row=effect.row), (), question, names.ids)
        kind = kinds[effect.kind] if effect.kind >= 0 else "event"
        found.append(PastItem(effect, kind, why_address(user, item, after)))
    return found


PAGES = (Page("", why),)
